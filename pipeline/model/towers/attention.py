"""Attention that weights each token by the number of tokens it represents. Tensors in, tensors out.

Shapes: B images, H heads, Q queries, T tokens, E head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.model.precision import Kernels
from pipeline.model.towers import onednn

MAX_DENSE_TOKENS = 640
"""Longer sequences need too large a T x T matrix, even if it is faster."""


def dense_is_faster(device: torch.device, dtype: torch.dtype, num_tokens: int) -> bool:
    """Whether two matrix products and a softmax are faster than the fused kernel.

    They are on CPUs with fast bf16, where torch's fused kernel takes twice as long at 50 to 600 tokens. See
    DECISIONS.md. `pipeline.model.probe` finds out whether this CPU is one.
    """
    return onednn.suits(device, dtype) and num_tokens <= MAX_DENSE_TOKENS


def attend(
    query_BHQE: Tensor,
    key_BHTE: Tensor,
    value_BHTE: Tensor,
    log_sizes_BT: Tensor | None = None,
    kernels: Kernels = "onednn",
) -> Tensor:
    """softmax(q k^T / sqrt(E) + log s) v, [B, H, Q, E], by the fastest method; plain attention without sizes.

    The fused kernels of CPUs and of GPUs accept the row of log sizes as a mask.
    """
    if log_sizes_BT is not None:
        log_sizes_BT = log_sizes_BT.to(query_BHQE.dtype)
    if kernels == "onednn" and dense_is_faster(query_BHQE.device, query_BHQE.dtype, key_BHTE.shape[2]):
        return attend_densely(query_BHQE, key_BHTE, value_BHTE, log_sizes_BT)
    mask = None if log_sizes_BT is None else _mask(log_sizes_BT, query_BHQE)
    return F.scaled_dot_product_attention(query_BHQE, key_BHTE, value_BHTE, attn_mask=mask)


def _mask(log_sizes_BT: Tensor, query_BHQE: Tensor) -> Tensor:
    """The log sizes as a mask, [B, 1 or H, 1 or Q, T], laid out for the fastest kernel of the device."""
    num_tokens = log_sizes_BT.shape[1]
    if query_BHQE.device.type == "cpu" or num_tokens % 2 == 0:
        return log_sizes_BT[:, None, None, :]
    # a GPU's fast kernel refuses rows that start at odd places; where it does not, padding costs more than it gains
    rows_BT = F.pad(log_sizes_BT, (0, -num_tokens % 8))[:, :num_tokens]
    return rows_BT[:, None, None, :].expand(-1, query_BHQE.shape[1], query_BHQE.shape[2], -1)


def attend_densely(query_BHQE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor, log_sizes_BT: Tensor | None) -> Tensor:
    """The same as two matrix products, with the whole Q x T matrix in memory."""
    num_images, num_heads, num_queries, width = query_BHQE.shape
    query, key, value = (heads.flatten(0, 1) for heads in (query_BHQE, key_BHTE, value_BHTE))
    if log_sizes_BT is None:
        added = query.new_empty(1)  # not read: multiplied by beta = 0
    else:
        added = log_sizes_BT[:, None, None, :].expand(-1, num_heads, -1, -1).flatten(0, 1)
    is_added = int(log_sizes_BT is not None)
    logits = torch.baddbmm(added, query, key.transpose(1, 2), beta=is_added, alpha=width**-0.5)
    return torch.bmm(onednn.softmax(logits), value).view(num_images, num_heads, num_queries, width)
