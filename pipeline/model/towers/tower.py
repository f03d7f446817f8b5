"""The interface between pruning and image towers, implemented for each family of towers.

Shapes: B images, T tokens in a sequence, N patch tokens, D width, H heads, E head width. A sequence has `num_prefix`
tokens (the class token first, then registers), then the others. A tower with rotary positions passes each block a
`rope` for the tokens after the prefix; prefix tokens are never rotated.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.model.precision import Kernels
from pipeline.model.towers.attention import attend
from pipeline.model.towers.parts import BlockParts, Linear


class Tower(ABC):
    """A view of an image tower. Holds no state beyond the module and what was chosen for it."""

    module: nn.Module
    """Maps images to features."""

    stem: nn.Module
    """Maps images to patch tokens, before positions are added."""

    blocks: Sequence[nn.Module]
    grid: tuple[int, int]
    """Rows and columns of patch tokens."""

    num_prefix: int
    """Tokens before the patches: the class token, registers."""

    image_size: tuple[int, int]
    width: int
    num_heads: int
    head_width: int

    kernels: Kernels = "onednn"
    """How a CPU computes it in bf16."""

    pool: nn.Module | None
    """Pools the tokens by attention; None if the class token is read instead."""

    @property
    def num_patches(self) -> int:
        """Patch tokens N."""
        return self.grid[0] * self.grid[1]

    @property
    @abstractmethod
    def reads_class_token_only(self) -> bool:
        """Whether only the class token is read after the last block."""

    @abstractmethod
    def first_norm(self, block: nn.Module, x_BTD: Tensor) -> Tensor:
        """The input of the block's attention, from the tokens that enter the block."""

    @abstractmethod
    def heads(self, block: nn.Module, normed_BTD: Tensor, parts: str) -> list[Tensor]:
        """The queries, keys or values of normed tokens named by `parts` (a substring of "qkv"): [B, H, T, E] each."""

    @abstractmethod
    def split_heads(self, block: nn.Module, joint_BTF: Tensor, parts: str) -> list[Tensor]:
        """What `heads` makes of the projected tokens, [B, T, F]: separate heads, normed where the block norms them."""

    @abstractmethod
    def qkv(self, block: nn.Module) -> Linear:
        """The weights that project the normed tokens of any block to queries, keys and values, side by side."""

    def other_linears(self, block: nn.Module) -> list[nn.Linear]:
        """The linear layers of a block apart from `qkv`; `finish` calls them."""
        return [module for module in block.modules() if isinstance(module, nn.Linear)]

    @abstractmethod
    def parts(self, block: nn.Module) -> BlockParts | None:
        """The weights of a block, for kernels that compute it themselves; None if it is not a plain pre-norm block."""

    @abstractmethod
    def key_weight(self, block: nn.Module) -> Tensor | None:
        """The weight [H, E, D] that maps normed tokens to keys, up to a bias; None if keys are normed or rotated."""

    @abstractmethod
    def finish(self, block: nn.Module, x_BTD: Tensor, normed_BTD: Tensor, mixed_BHTE: Tensor) -> Tensor:
        """The rest of a block after attention: output projection, residuals, MLP."""

    @abstractmethod
    def gelu_after_linear(self, block: nn.Module) -> tuple[nn.Linear, nn.GELU] | None:
        """A linear layer of the block whose output only goes to a GELU, and that GELU; None if there is no pair."""

    @abstractmethod
    def head(self, x_BTD: Tensor) -> Tensor:
        """Pool the output of the last block into features: [B, embedding]."""

    @abstractmethod
    def pool_with_sizes(self, x_BTD: Tensor, log_sizes_BT: Tensor) -> Tensor:
        """The output of `pool` with each token counted s times."""

    def rotate(self, block: nn.Module, heads_BHTE: Tensor, rope: Tensor | None) -> Tensor:
        """Rotate queries or keys of a sequence by their positions; does nothing without a `rope`."""
        assert rope is None, f"{type(self).__name__} does not support rotary positions"
        return heads_BHTE

    def run_block(
        self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """Run the block with our attention, which can count each token s times."""
        normed_BTD = self.first_norm(block, x_BTD)
        query, key, value = self.heads(block, normed_BTD, "qkv")
        query, key = self.rotate(block, query, rope), self.rotate(block, key, rope)
        return self.finish(block, x_BTD, normed_BTD, attend(query, key, value, log_sizes_BT, self.kernels))

    def class_token_block(
        self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """The block's output for the class token only, [B, 1, D]; it still attends to every token."""
        normed_BTD = self.first_norm(block, x_BTD)
        [query] = self.heads(block, normed_BTD[:, :1], "q")
        key, value = self.heads(block, normed_BTD, "kv")
        mixed = attend(query, self.rotate(block, key, rope), value, log_sizes_BT, self.kernels)
        return self.finish(block, x_BTD[:, :1], normed_BTD[:, :1], mixed)

    def reader_logits(self, block: nn.Module, x_BTD: Tensor, rope: Tensor | None) -> Tensor:
        """Attention logits of the reader of the image (the class token) over all tokens entering a block: [B, H, T].

        If keys are linear in the tokens, the query is multiplied by their weights and then by the tokens: the same
        products in another order, and D / H times fewer. This omits a constant per head, which softmax ignores.
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
        """The value that the reader would take from each token entering a block: [B, H, T, E]."""
        return self.heads(block, self.first_norm(block, x_BTD), "v")[0]

    def reader_feature(self, x_BTD: Tensor) -> Tensor:
        """The features that the tower would compute from these tokens: [B, embedding]."""
        return self.head(x_BTD)

    def feature_of_each(self, x_BTD: Tensor) -> Tensor:
        """The features computed from each token on its own: [B, T, embedding]."""
        return self.head(x_BTD.flatten(0, 1).unsqueeze(1)).unflatten(0, x_BTD.shape[:2])
