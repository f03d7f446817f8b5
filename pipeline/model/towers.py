"""What a pruner has to know of a tower: its tokens, blocks, projections, and how it is pooled. One class a family.

Shapes: B images, T tokens, N patch tokens, D width, H heads, E head width.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from open_clip.transformer import CustomResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from pipeline.errors import InputError


class Tower(Protocol):
    """A family's view of an image tower. Views hold no state beyond the module."""

    module: nn.Module
    blocks: nn.ModuleList
    num_prefix: int
    grid: tuple[int, int]

    @property
    def reads_class_token_only(self) -> bool:
        """Whether nothing but the class token is read after the last block."""

    def project(self, block: nn.Module, x_BTD: Tensor, part: str) -> Tensor:
        """The block's `query`, `key` or `value` of tokens entering it: [B, H, T, E]."""

    def class_token_block(self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None) -> Tensor:
        """The block's output for the class token alone, [B, 1, D]; every token is still attended to."""

    def embed_tokens(self, x_BTD: Tensor) -> Tensor:
        """Tokens through the final norm and projection, [B, T, embedding]."""


def view_of(module: nn.Module) -> Tower:
    """The view of an image tower.

    Raises:
        InputError: If this tower cannot be pruned, with the reason.
    """
    reason = unprunable_reason(module)
    if reason:
        raise InputError(f"this image tower cannot be pruned: {reason}; use --policy none")
    return OpenClipTower(module)


def unprunable_reason(module: nn.Module) -> str | None:
    """Why an image tower cannot be pruned, None if it can."""
    if not isinstance(module, VisionTransformer):
        return f"{type(module).__name__} is not open_clip's VisionTransformer"
    if module.attn_pool is None and module.pool_type == "avg":
        return "it is pooled by the mean of its patch tokens, which a cut would bias"
    return None


class OpenClipTower:
    """open_clip's own VisionTransformer: with and without ln_pre, query-key norms, CoCa's attentional pooling."""

    num_prefix = 1

    def __init__(self, module: VisionTransformer) -> None:
        """View `module`."""
        self.module = module
        self.blocks = module.transformer.resblocks
        self.grid = module.grid_size

    @property
    def reads_class_token_only(self) -> bool:
        """Whether nothing but the class token is read after the last block."""
        return self.module.attn_pool is None and self.module.pool_type == "tok" and not self.module.output_tokens

    def project(self, block: nn.Module, x_BTD: Tensor, part: str) -> Tensor:
        """The block's `query`, `key` or `value` of tokens entering it: [B, H, T, E]."""
        return _heads(block.attn, block.ln_1(x_BTD), part)

    def class_token_block(self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None) -> Tensor:
        """The block's output for the class token alone, [B, 1, D]."""
        attention, normed_BTD = block.attn, block.ln_1(x_BTD)
        query = _heads(attention, normed_BTD[:, :1], "query")
        key, value = (_heads(attention, normed_BTD, part) for part in ("key", "value"))
        return _after_attention(block, x_BTD[:, :1], _mix(query, key, value, log_sizes_BT))

    def embed_tokens(self, x_BTD: Tensor) -> Tensor:
        """Tokens through the final norm and projection, [B, T, embedding]."""
        normed_BTD = self.module.ln_post(x_BTD)
        return normed_BTD if self.module.proj is None else normed_BTD @ self.module.proj


def _heads(attention: nn.Module, normed_BTD: Tensor, part: str) -> Tensor:
    number = ("query", "key", "value").index(part)
    weight = attention.in_proj_weight.chunk(3)[number]
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)[number]
    heads_BHTE = F.linear(normed_BTD, weight, bias).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    norm = {"query": "ln_q", "key": "ln_k"}.get(part)
    return getattr(attention, norm)(heads_BHTE) if norm and hasattr(attention, norm) else heads_BHTE


def _all_heads(attention: nn.Module, normed_BTD: Tensor) -> list[Tensor]:
    """Queries, keys and values of all tokens, from one product instead of three."""
    joint_BTF = F.linear(normed_BTD, attention.in_proj_weight, attention.in_proj_bias)
    heads = [part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in joint_BTF.chunk(3, dim=-1)]
    norms = (getattr(attention, name, None) for name in ("ln_q", "ln_k", "ln_v"))
    return [norm(part) if norm else part for part, norm in zip(heads, norms, strict=True)]


def attend_with_sizes(block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor) -> Tensor:
    """An open_clip block whose attention counts each token s times: softmax(q k^T / sqrt(d) + log s)."""
    query, key, value = _all_heads(block.attn, block.ln_1(x_BTD))
    return _after_attention(block, x_BTD, _mix(query, key, value, log_sizes_BT))


def _mix(query: Tensor, key: Tensor, value: Tensor, log_sizes_BT: Tensor | None) -> Tensor:
    """Attention of some queries over all tokens, [B, H, T, E].

    The CPU's fused kernel takes the row of log sizes as a mask, and for one query a mask is cheap anywhere. Else it
    would cost the fastest kernels, see `attention_with_sizes`.
    """
    if log_sizes_BT is None:
        return F.scaled_dot_product_attention(query, key, value)
    log_sizes_BT = log_sizes_BT.to(query.dtype)
    if query.device.type == "cpu" or query.shape[2] == 1:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=log_sizes_BT[:, None, None, :])
    return attention_with_sizes(query, key, value, log_sizes_BT)


def _after_attention(block: nn.Module, x_BTD: Tensor, mixed_BHTE: Tensor) -> Tensor:
    """The rest of a block: what comes between the heads and the residual stream, and the MLP."""
    attention = block.attn
    if getattr(attention, "head_scale", None) is not None:
        mixed_BHTE = mixed_BHTE * attention.head_scale
    mixed_BTD = mixed_BHTE.transpose(1, 2).flatten(2)
    if isinstance(block, CustomResidualAttentionBlock):
        mixed_BTD = block.ln_attn(attention.out_proj(attention.ln_inner(mixed_BTD)))
    else:
        mixed_BTD = attention.out_proj(mixed_BTD)
    x_BTD = x_BTD + block.ls_1(mixed_BTD)
    return x_BTD + block.ls_2(block.mlp(block.ln_2(x_BTD)))


def attention_with_sizes(query_BHTE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor, log_sizes_BT: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + log s) v by a fused kernel without a mask: [B, H, T, E].

    The same sum, written with one more dimension: q' = [q, sqrt(d)], k' = [k, log s], scale 1 / sqrt(d).
    """
    width = query_BHTE.shape[-1]
    root_BHT1 = torch.full_like(query_BHTE[..., :1], width**0.5)
    sizes_BHT1 = log_sizes_BT[:, None, :, None].expand(-1, key_BHTE.shape[1], -1, -1)
    query, key = torch.cat([query_BHTE, root_BHT1], dim=-1), torch.cat([key_BHTE, sizes_BHT1], dim=-1)
    return F.scaled_dot_product_attention(query, key, value_BHTE, scale=width**-0.5)
