"""Step `attention`: ways to weight each token by the number of tokens it represents, at the sizes of pruned towers."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.errors import first_line
from pipeline.measure.timing import interleaved_seconds
from pipeline.model.towers.attention import attend, attend_densely
from query.bench.gpu.setup import Row, Setup, Task

_SHAPES = ((12, 198), (12, 138), (12, 69), (16, 258), (16, 180), (16, 91), (16, 404), (16, 202))
"""Heads and tokens: ViT-B/16, ViT-L/14 and ViT-L/14-336, unpruned and under `balanced`."""

_HEAD_WIDTH = 64


def tasks(setup: Setup) -> Iterator[Task]:
    """The tasks of this step."""
    yield Task("weighted attention", 20, lambda: _variants(setup))


def _variants(setup: Setup) -> list[Row]:
    dtype = torch.bfloat16 if setup.device == "cuda" else torch.float32
    rows = []
    for heads, tokens in _SHAPES[: setup.scaled(len(_SHAPES), 1)]:
        shape = (setup.scaled(256, 2), heads, tokens, _HEAD_WIDTH)
        query, key, value = (torch.randn(shape, device=setup.device, dtype=dtype) for _ in range(3))
        sizes = torch.rand(shape[0], tokens, device=setup.device).mul_(3).log1p_().to(dtype)
        calls, refused = _calls(setup, query, key, value, sizes), {}
        exact = _exact(query, key, value, sizes)
        errors = {}
        for name in list(calls):
            try:
                result = calls[name]().float()
                errors[name] = None if name == "plain" else float((result - exact).norm() / exact.norm())
            except Exception as error:  # this backend does not take this shape or mask
                refused[name] = first_line(error)
                del calls[name]
        seconds = interleaved_seconds(calls, setup.scaled(15, 1), setup.device)
        for name in [*calls, *refused]:
            row: Row = {"name": f"{heads} heads, {tokens} tokens, {name}", "relative_error": errors.get(name)}
            if name in refused:
                rows.append(row | {"refused": refused[name]})
            else:
                rows.append(row | {"ms": 1e3 * sorted(seconds[name])[len(seconds[name]) // 2]})
    return rows


def _calls(
    setup: Setup, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sizes: torch.Tensor
) -> dict[str, Callable[[], torch.Tensor]]:
    tokens = sizes.shape[1]
    mask = sizes[:, None, None, :]
    wide = F.pad(sizes, (0, -tokens % 8))[:, None, None, :tokens]  # rows that start at a multiple of 16 bytes

    def masked(backend: SDPBackend, mask: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    calls: dict[str, Callable[[], torch.Tensor]] = {
        "plain": lambda: F.scaled_dot_product_attention(query, key, value),
        "ours": lambda: attend(query, key, value, sizes),
        "dense": lambda: attend_densely(query, key, value, sizes),
        "mask": lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=mask),
    }
    if setup.device == "cuda":
        full = wide.expand(-1, query.shape[1], tokens, -1)
        calls |= {
            "mask, efficient": lambda: masked(SDPBackend.EFFICIENT_ATTENTION, full),
            "mask, cuDNN": lambda: masked(SDPBackend.CUDNN_ATTENTION, full),
            "mask, cuDNN, one row": lambda: masked(SDPBackend.CUDNN_ATTENTION, wide),
        }
    return calls


def _exact(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """The same in float32, a few images at a time."""
    parts = []
    for start in range(0, len(query), 16):
        rows = slice(start, start + 16)
        logits = query[rows].float() @ key[rows].float().transpose(2, 3) * query.shape[-1] ** -0.5
        logits = logits + sizes[rows].float()[:, None, None, :]
        parts.append(logits.softmax(dim=-1) @ value[rows].float())
    return torch.cat(parts)
