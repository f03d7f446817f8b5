"""From uint8 pixels to a tower's input, and open_clip's own preprocessing as the reference for ours."""

from collections.abc import Callable

import torch
from open_clip import image_transform
from PIL import Image
from torch import Tensor

from pipeline.model.spec import Preprocess


def reference_transform(preprocess: Preprocess) -> Callable[[Image.Image], Tensor]:
    """open_clip's inference transform for a model: maps an image to normalised float32 [C, H, W]."""
    return image_transform(
        (preprocess.height, preprocess.width),
        is_train=False,
        mean=preprocess.mean,
        std=preprocess.std,
        resize_mode=preprocess.resize_mode,
        interpolation=preprocess.interpolation,
        fill_color=preprocess.fill_color,
    )


class PixelScaling:
    """Convert uint8 pixels to a tower's input: (pixels / 255 - mean) / std per channel."""

    def __init__(self, preprocess: Preprocess, device: torch.device, dtype: torch.dtype) -> None:
        # one value per element of a pixel row: torch's CPU kernels are several times slower along three channels
        scale = torch.tensor([1 / (255 * std) for std in preprocess.std], device=device)
        shift = [-mean / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
        self._scale = scale.repeat(preprocess.width)
        self._shift = torch.tensor(shift, device=device).repeat(preprocess.width)
        self._dtype = dtype

    def __call__(self, pixels_BHWC: Tensor) -> Tensor:
        """Scale pixels on the device to [B, C, H, W]."""
        # [B, H, W, C] viewed as [B, C, H, W] is channels-last, the fastest layout for the patch embedding
        rows = torch.addcmul(self._shift, pixels_BHWC.flatten(2).float(), self._scale).to(self._dtype)
        return rows.view(pixels_BHWC.shape).permute(0, 3, 1, 2)


def as_channels(pixels_BHWC: Tensor) -> Tensor:
    """Pixels as they are, for a tower that reads uint8: viewed as [B, C, H, W]."""
    return pixels_BHWC.permute(0, 3, 1, 2)
