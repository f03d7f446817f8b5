"""Which parts of a block are computed by other kernels than torch's, with the same result up to rounding."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.model.towers import onednn
from pipeline.model.towers.attention import dense_is_faster
from pipeline.model.towers.tower import Tower

WIDE_HEADS = 64
"""With narrower heads, torch's own multi-head attention is as fast as ours."""


def is_written_out(tower: Tower, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether blocks run with our attention (`Tower.run_block`) instead of their own `forward`."""
    num_tokens = tower.num_prefix + tower.num_patches
    is_ours = tower.kernels == "onednn" and tower.head_width >= WIDE_HEADS
    return is_ours and dense_is_faster(device, dtype, num_tokens)


def replacements(
    tower: Tower, block: nn.Module, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[nn.Module, Callable[[Tensor], Tensor]]]:
    """The modules of a block that oneDNN computes, with their new `forward`. A GELU joins the layer before it."""
    if tower.kernels != "onednn" or not onednn.suits(device, dtype):
        return
    pair = tower.gelu_after_linear(block)
    if pair:
        yield pair[1], lambda x: x
    for module in block.modules():
        if isinstance(module, nn.Linear):
            gelu = pair[1].approximate if pair and module is pair[0] else None
            yield module, partial(onednn.linear_forward, module, gelu)
