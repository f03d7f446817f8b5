"""One linear layer as a product of 8-bit numbers, by oneDNN. Home of torch's 8-bit operators on CPUs.

Activations are unsigned with one scale and one zero point for the whole tensor, which is what oneDNN takes. Weights are
signed with one scale per output channel. Sums are exact, so a result depends neither on the number of threads nor on
the batch. The operators are the ones that torch's own compiler calls.

Shapes: R rows, K input channels, N output channels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.model.towers.parts import Activation, Linear

MAX_U8 = 255
MAX_S8 = 127
MAX_PAIR = 128
"""Largest sum of two neighbouring weights: CPUs without VNNI add two products in 16 bits, and 255 * 128 fits."""

_QUICK = 1.702
"""QuickGELU is x * sigmoid(1.702 x). oneDNN has x * sigmoid(x), so the layer computes 1.702 times its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """How one activation tensor becomes unsigned 8-bit numbers: x / (smooth * scale) + zero_point, rounded."""

    scale: float
    zero_point: int
    smooth_K: Tensor | None = None
    """Divides each channel before rounding (SmoothQuant, arXiv 2211.10438); the weights are multiplied by it."""

    outliers_M: Tensor | None = None
    """Numbers of channels that would stretch the range; they are multiplied in float (LLM.int8(), arXiv 2208.07339)."""


def quantize(x: Tensor, found: Range) -> Tensor:
    """Round an activation tensor, [..., K] of any float type, to uint8."""
    shift = torch.tensor(found.zero_point + 0.5)
    if found.smooth_K is None:
        shifted = torch.add(shift, x.float(), alpha=1 / found.scale)
    else:
        shifted = torch.addcmul(shift, x.float(), 1 / (found.smooth_K * found.scale))
    return to_u8(shifted)


def to_u8(shifted: Tensor) -> Tensor:
    """The last step of rounding: numbers that already have their zero point and one half more. Changes its input."""
    # by way of int16: torch converts float to uint8 one number at a time
    return shifted.clamp_(0, MAX_U8).to(torch.int16).to(torch.uint8)


class Int8Linear:
    """A linear layer on unsigned 8-bit inputs of a known range, without the outlier channels of that range."""

    def __init__(self, linear: Linear, input_range: Range, activation: Activation | None = None) -> None:
        """Round the weights and convert them to oneDNN's layout.

        Args:
            linear: The layer, in float32.
            input_range: How its inputs were rounded.
            activation: A GELU after the layer.
        """
        weight_NK = linear.weight_NK.detach().float()
        if input_range.smooth_K is not None:
            weight_NK = weight_NK * input_range.smooth_K
        if input_range.outliers_M is not None:
            weight_NK = weight_NK.index_fill(1, input_range.outliers_M, 0.0)
        bias_N = None if linear.bias_N is None else linear.bias_N.detach().float()
        scale_N = _weight_scales(weight_NK)
        rounded_NK = (weight_NK / scale_N[:, None]).round()
        self._packed = torch.ops.onednn.qlinear_prepack(rounded_NK.to(torch.int8), None)
        self._gain = _QUICK if activation == "quick" else 1.0
        self._scale_N = scale_N * self._gain
        self._zeros_N = torch.zeros(len(scale_N), dtype=torch.int32)
        self._bias_N = bias_N if bias_N is None else bias_N * self._gain
        self._post_op = _post_op(activation)
        self._scale, self._zero_point = input_range.scale, input_range.zero_point

    def __deepcopy__(self, memo: dict[int, Any]) -> "Int8Linear":
        """Itself: it never changes, and packed weights cannot be copied."""
        return self

    def __call__(self, x_u8: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The output in a float type: [..., N]."""
        result = self._product(x_u8, 1.0, 0, dtype)
        return result if self._gain == 1 else result / self._gain

    def rounded(self, x_u8: Tensor, found: Range) -> Tensor:
        """The output rounded to uint8; its range has no smoothing."""
        return self._product(x_u8, found.scale * self._gain, found.zero_point, torch.uint8)

    def add_to(self, residual: Tensor, x_u8: Tensor) -> None:
        """Add the output to a contiguous tensor, in place."""
        torch.ops.onednn.qlinear_pointwise.binary(
            *self._operands(x_u8),
            residual,
            self._bias_N,
            1.0,
            0,
            residual.dtype,
            1.0,
            0,
            "sum",
            1.0,
            "none",
            [],
            "",
        )

    def _operands(self, x_u8: Tensor) -> tuple[Any, ...]:
        return x_u8, self._scale, self._zero_point, self._packed, self._scale_N, self._zeros_N

    def _product(self, x_u8: Tensor, scale: float, zero_point: int, dtype: torch.dtype) -> Tensor:
        return torch.ops.onednn.qlinear_pointwise(
            *self._operands(x_u8),
            self._bias_N,
            scale,
            zero_point,
            dtype,
            *self._post_op,
        )


def _weight_scales(weight_NK: Tensor) -> Tensor:
    """The scale of each output channel: the finest that overflows on no CPU. All CPUs get the same weights."""
    even_NP, odd_NP = weight_NK[:, 0::2], weight_NK[:, 1::2]
    pair_N = (even_NP[:, : odd_NP.shape[1]] + odd_NP).abs().amax(dim=1)  # of an odd number, the last has no neighbour
    largest_N = torch.maximum(weight_NK.abs().amax(dim=1) / MAX_S8, pair_N / (MAX_PAIR - 1))  # rounding may add one
    return largest_N.clamp(min=1e-12)


def _post_op(activation: Activation | None) -> tuple[str, list[Any], str]:
    if activation is None:
        return "none", [], ""
    return ("swish", [], "") if activation == "quick" else ("gelu", [], activation)
