"""The first layer of a tower as an 8-bit product of the pixels themselves, which are 8-bit numbers already.

Only its weights are rounded. They take over the scaling of the pixels, so no image is ever in float.

Shapes: B images, C channels, D width, K = patch height x patch width x C.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.model.quantization.products import Int8Linear, Range
from pipeline.model.spec import Preprocess
from pipeline.model.towers import patchify
from pipeline.model.towers.parts import Linear

_MIDDLE = 128
"""Subtracted from each pixel, because the rounding of a weight is multiplied by it."""


class Int8Stem:
    """The patch embedding of a tower, from uint8 pixels."""

    @torch.no_grad()
    def __init__(self, conv: nn.Conv2d, preprocess: Preprocess) -> None:
        """Round the weights of a convolution whose windows touch and do not overlap (`patchify.is_product`)."""
        self._conv = conv
        mean_C, std_C = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        weight_DCHW = conv.weight.detach().float() / (255 * std_C[:, None, None])
        shift_D = (weight_DCHW * (_MIDDLE - 255 * mean_C)[:, None, None]).sum(dim=(1, 2, 3))
        bias_D = shift_D if conv.bias is None else shift_D + conv.bias
        linear = Linear(weight_NK=weight_DCHW.permute(0, 2, 3, 1).flatten(1), bias_N=bias_D)
        self._product = Int8Linear(linear, Range(scale=1.0, zero_point=_MIDDLE))

    def attach(self) -> Callable[[], None]:
        """Compute the convolution so; returns what undoes it."""
        self._conv.forward = self.__call__  # hides the method of the class
        return partial(vars(self._conv).pop, "forward", None)

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """A replacement for the `forward` of the convolution: uint8 pixels to [B, D, rows, columns] in float32."""
        return self._product(patchify.windows(self._conv, x_BCHW)).permute(0, 3, 1, 2)


def stem_of(module: nn.Module) -> nn.Conv2d | None:
    """The convolution that cuts images into patches; None if the first layers are something else."""
    found = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    return found[0] if len(found) == 1 and patchify.is_product(found[0]) and found[0].in_channels == 3 else None
