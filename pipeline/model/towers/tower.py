"""What pruning has to know of an image tower, and what it can do with any: the view that each family fills in.

Shapes: B images, T tokens of a sequence, N patch tokens, D width, H heads, E head width. A sequence is `num_prefix`
tokens (the class token first, then registers), then the others. A tower with rotary positions hands each block a
`rope` for the tokens after the prefix, which never turn.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.model.towers.attention import attend


class Tower(ABC):
    """A view of an image tower. It holds no state beyond the module."""

    module: nn.Module
    """What maps images to features."""

    stem: nn.Module
    """What maps images to patch tokens, before their positions."""

    blocks: Sequence[nn.Module]
    grid: tuple[int, int]
    """Rows and columns of patch tokens."""

    num_prefix: int
    """Tokens before the patches: the class token, registers."""

    image_size: tuple[int, int]
    width: int
    num_heads: int
    head_width: int

    pool: nn.Module | None
    """What pools the tokens by attention; None where the class token is read."""

    @property
    def num_patches(self) -> int:
        """Patch tokens N."""
        return self.grid[0] * self.grid[1]

    @property
    @abstractmethod
    def reads_class_token_only(self) -> bool:
        """Whether nothing but the class token is read after the last block."""

    @abstractmethod
    def first_norm(self, block: nn.Module, x_BTD: Tensor) -> Tensor:
        """What the block's attention reads of the tokens that enter it."""

    @abstractmethod
    def heads(self, block: nn.Module, normed_BTD: Tensor, parts: str) -> list[Tensor]:
        """Of normed tokens, those of queries, keys and values that `parts` (out of "qkv") names: [B, H, T, E] each."""

    @abstractmethod
    def key_weight(self, block: nn.Module) -> Tensor | None:
        """[H, E, D] such that keys are that times the normed tokens, and a constant; None if normed or turned."""

    @abstractmethod
    def finish(self, block: nn.Module, x_BTD: Tensor, normed_BTD: Tensor, mixed_BHTE: Tensor) -> Tensor:
        """The rest of a block after attention: output projection, residuals, MLP."""

    @abstractmethod
    def gelu_after_linear(self, block: nn.Module) -> tuple[nn.Linear, nn.GELU] | None:
        """The layer of the block whose output goes through a GELU and nowhere else, and that GELU; None without one."""

    @abstractmethod
    def head(self, x_BTD: Tensor) -> Tensor:
        """Pool the tokens that leave the last block into features: [B, embedding]."""

    @abstractmethod
    def pool_with_sizes(self, x_BTD: Tensor, log_sizes_BT: Tensor) -> Tensor:
        """What `pool` returns of its tokens, counting each s times."""

    def rotate(self, block: nn.Module, heads_BHTE: Tensor, rope: Tensor | None) -> Tensor:
        """Turn queries or keys of a sequence by their positions; nothing to do without a `rope`."""
        assert rope is None, f"{type(self).__name__} knows no rotary positions"
        return heads_BHTE

    def run_block(
        self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """The block written out: with our attention, which can count each token s times."""
        normed_BTD = self.first_norm(block, x_BTD)
        query, key, value = self.heads(block, normed_BTD, "qkv")
        query, key = self.rotate(block, query, rope), self.rotate(block, key, rope)
        return self.finish(block, x_BTD, normed_BTD, attend(query, key, value, log_sizes_BT))

    def class_token_block(
        self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """The block's output for the class token alone, [B, 1, D]; every token is still attended to."""
        normed_BTD = self.first_norm(block, x_BTD)
        [query] = self.heads(block, normed_BTD[:, :1], "q")
        key, value = self.heads(block, normed_BTD, "kv")
        mixed = attend(query, self.rotate(block, key, rope), value, log_sizes_BT)
        return self.finish(block, x_BTD[:, :1], normed_BTD[:, :1], mixed)

    def reader_logits(self, block: nn.Module, x_BTD: Tensor, rope: Tensor | None) -> Tensor:
        """Attention logits of what reads the image, the class token, over all tokens entering a block: [B, H, T].

        Where keys are linear, the query is taken through their weights to the tokens instead: the same products in
        another order, and D / H times fewer of them. A constant per head is left out, which softmax does not see.
        """
        normed_BTD = self.first_norm(block, x_BTD)
        [query_BHQE] = self.heads(block, normed_BTD[:, :1], "q")
        query_BHE = query_BHQE[:, :, 0] * self.head_width**-0.5
        weight_HED = self.key_weight(block)
        if weight_HED is None:
            [key_BHTE] = self.heads(block, normed_BTD, "k")
            return torch.einsum("bhe,bhte->bht", query_BHE, self.rotate(block, key_BHTE, rope)).float()
        asked_BHD = torch.bmm(query_BHE.transpose(0, 1), weight_HED).transpose(0, 1)
        return (asked_BHD @ normed_BTD.transpose(1, 2)).float()

    def reader_values(self, block: nn.Module, x_BTD: Tensor) -> Tensor:
        """What the reader would fetch from each token entering a block: [B, H, T, E]."""
        return self.heads(block, self.first_norm(block, x_BTD), "v")[0]

    def reader_feature(self, x_BTD: Tensor) -> Tensor:
        """The features as the tower would read them from these tokens now: [B, embedding]."""
        return self.head(x_BTD)

    def feature_of_each(self, x_BTD: Tensor) -> Tensor:
        """The features if each token were alone: [B, T, embedding]."""
        return self.head(x_BTD.flatten(0, 1).unsqueeze(1)).unflatten(0, x_BTD.shape[:2])
