"""Find the range of every 8-bit input from images: run a tower in float32 and look at what enters its linear layers.

Shapes: B images, T tokens, R sampled rows, K input channels, N output channels.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.model.quantization.products import MAX_U8, Int8Linear, Range, quantize
from pipeline.model.towers.attention import attend
from pipeline.model.towers.parts import BlockParts, Linear, activate
from pipeline.model.towers.tower import Tower

MAX_ROWS = 1024
"""Rows that are kept of each input, to judge a range by the output it gives."""

MAX_BYTES = 2**28
"""Memory for the kept rows of a tower; a large tower keeps fewer."""

NUM_OUTLIERS = 16
"""Channels of a GELU's output that stay in float."""

_ROWS_PER_IMAGE = 8
_SCALE_STEPS, _SMOOTH_STEPS = 64, 8
"""Steps in a factor of two to which scales and smoothing are rounded, so that they seldom depend on how sums ran."""

_ALPHAS = (0.0, 0.25, 0.5, 0.65, 0.8, 0.9, 1.0)
"""How far outlier channels are smoothed into the weights: not at all, to all of it."""


class Observer:
    """Runs the plain blocks of a tower in float32 and notes what enters their linear layers. A `BlockRunner`."""

    def __init__(self, tower: Tower) -> None:
        """Observe `tower`, whose weights are in float32."""
        self._tower = tower
        self._parts = {block: parts for block in tower.blocks if (parts := tower.parts(block))}
        self._numbers = {block: number for number, block in enumerate(tower.blocks)}
        widths = [width for parts in self._parts.values() for width in _input_widths(parts).values()]
        self._max_rows = min(MAX_ROWS, MAX_BYTES // (4 * max(1, sum(widths))))
        self.inputs: dict[str, Input] = {}
        """What entered each linear layer, by `<number of the block>.<site>`."""

    def run_block(
        self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """The output of the block; see `Tower.run_block`."""
        return self._run(block, x_BTD, log_sizes_BT, rope, slice(None))

    def class_token_block(
        self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """The output of the block for the class token only; see `Tower.class_token_block`."""
        return self._run(block, x_BTD, log_sizes_BT, rope, slice(1))

    def _run(
        self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None, rope: Tensor | None, asked: slice
    ) -> Tensor:
        tower, parts = self._tower, self._parts.get(block)
        if parts is None:
            run = tower.run_block if asked.stop is None else tower.class_token_block
            return run(block, x_BTD, log_sizes_BT, rope)
        joint_BTF = self._linear(block, "qkv", parts.qkv, parts.norm1(x_BTD))
        query, key, value = tower.split_heads(block, joint_BTF, "qkv")
        query, key = tower.rotate(block, query, rope)[:, :, asked], tower.rotate(block, key, rope)
        mixed_BTD = attend(query, key, value, log_sizes_BT).transpose(1, 2).flatten(2)
        x_BTD = x_BTD[:, asked] + self._linear(block, "proj", parts.proj, mixed_BTD)
        hidden_BTF = activate(parts.activation, self._linear(block, "fc1", parts.fc1, parts.norm2(x_BTD)))
        return x_BTD + self._linear(block, "fc2", parts.fc2, hidden_BTF)

    def _linear(self, block: nn.Module, site: str, linear: Linear, x_BTK: Tensor) -> Tensor:
        name = f"{self._numbers[block]}.{site}"
        self.inputs.setdefault(name, Input(self._max_rows)).see(x_BTK)
        return nn.functional.linear(x_BTK, linear.weight_NK, linear.bias_N)

    def ranges(self) -> dict[str, Range]:
        """The best range of each input, by `<number of the block>.<site>`."""
        found = {}
        for block, parts in self._parts.items():
            for site, linear in _linears(parts).items():
                name = f"{self._numbers[block]}.{site}"
                seen = self.inputs[name]
                found[name] = without_outliers(seen) if site == "fc2" else best_range(seen, linear)
        return found


class Input:
    """What has entered a linear layer: the bounds of each channel, and some rows."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self.low_K = self.high_K = None
        self._rows: list[Tensor] = []

    def see(self, x_BTK: Tensor) -> None:
        """Note a batch. The kept rows do not depend on how images are divided into batches."""
        low_K, high_K = x_BTK.amin((0, 1)), x_BTK.amax((0, 1))
        self.low_K = low_K if self.low_K is None else torch.minimum(self.low_K, low_K)
        self.high_K = high_K if self.high_K is None else torch.maximum(self.high_K, high_K)
        num_left = self._max_rows - sum(map(len, self._rows))
        if num_left > 0:
            num_tokens = x_BTK.shape[1]
            chosen = torch.linspace(0, num_tokens - 1, min(_ROWS_PER_IMAGE, num_tokens)).long()
            self._rows.append(x_BTK[:, chosen].flatten(0, 1)[:num_left].clone())

    @property
    def rows_RK(self) -> Tensor:
        """The kept rows."""
        return torch.cat(self._rows)


def without_outliers(seen: Input) -> Range:
    """The range of a GELU's output: its largest channels are left out, since there is nothing to smooth them into."""
    order_K = seen.high_K.argsort(descending=True, stable=True)
    num_outliers = min(NUM_OUTLIERS, len(order_K) - 1)
    outliers_M, rest = order_K[:num_outliers].sort().values, order_K[num_outliers:]
    found = _bounded(min(0.0, seen.low_K[rest].min().item()), max(0.0, seen.high_K[rest].max().item()))
    return replace(found, outliers_M=outliers_M)


def best_range(seen: Input, linear: Linear) -> Range:
    """The range whose rounding changes the output of a layer least, on the kept rows.

    It always spans all that was seen: the few tokens that a narrower range would clamp matter more than their number.
    """
    rows_RK, weight_NK = seen.rows_RK, linear.weight_NK.detach()
    right_RN = nn.functional.linear(rows_RK, weight_NK, linear.bias_N)

    def error(found: Range) -> float:
        given_RN = Int8Linear(linear, found)(quantize(rows_RK, found))
        return (given_RN - right_RN).square().mean().item()

    smoothings = [_smoothing(seen, weight_NK, alpha) for alpha in _ALPHAS]
    return min((_range(seen, smooth_K) for smooth_K in smoothings), key=error)


def _smoothing(seen: Input, weight_NK: Tensor, alpha: float) -> Tensor | None:
    """SmoothQuant's divisor of each channel: max |x| ** alpha / max |w| ** (1 - alpha), with a mean of 1."""
    if alpha == 0:
        return None
    largest_K = torch.maximum(seen.low_K.abs(), seen.high_K.abs()).clamp(min=1e-5)
    weight_K = weight_NK.abs().amax(dim=0).clamp(min=1e-5)
    smooth_K = largest_K**alpha / weight_K ** (1 - alpha)
    steps_K = (smooth_K.log2() - smooth_K.log2().mean()) * _SMOOTH_STEPS
    return torch.exp2(steps_K.round() / _SMOOTH_STEPS)


def _range(seen: Input, smooth_K: Tensor | None) -> Range:
    divisor = 1.0 if smooth_K is None else smooth_K
    low = min(0.0, (seen.low_K / divisor).min().item())
    high = max(0.0, (seen.high_K / divisor).max().item())
    return replace(_bounded(low, high), smooth_K=smooth_K)


def _bounded(low: float, high: float) -> Range:
    # rounded up, so that the range spans all
    scale = 2 ** (math.ceil(math.log2(max(high - low, 1e-8) / MAX_U8) * _SCALE_STEPS) / _SCALE_STEPS)
    return Range(scale=scale, zero_point=round(-low / scale))


def _linears(parts: BlockParts) -> dict[str, Linear]:
    return {"qkv": parts.qkv, "proj": parts.proj, "fc1": parts.fc1, "fc2": parts.fc2}


def _input_widths(parts: BlockParts) -> dict[str, int]:
    return {site: linear.weight_NK.shape[1] for site, linear in _linears(parts).items()}
