"""JPEGs decoded and resized on a device, by torchvision: by nvJPEG on a GPU, by libjpeg on a CPU.

The same code runs on both, so that all but nvJPEG itself is held against open_clip's pixels without a GPU.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_jpeg

from pipeline.model.spec import Preprocess
from pipeline.pixels.resize import resampling_name, resized_size


def decode_jpegs(jpegs: Sequence[np.ndarray], device: torch.device) -> list[Tensor | None]:
    """Decode JPEGs.

    Args:
        jpegs: Encoded bytes, uint8 [N] each.
        device: Where to decode, and where the pixels stay.

    Returns:
        uint8 [3, H, W] each, None where the decoder refuses a file. EXIF rotation is not looked at.
    """
    encoded = [torch.tensor(data) for data in jpegs]  # copied: Ray's arrays cannot be written to, which torch minds
    try:
        return decode_jpeg(encoded, ImageReadMode.RGB, device)
    except RuntimeError:  # of the first bad file, for all of them
        if len(encoded) == 1:
            return [None]
    return [decode_jpegs([data], device)[0] for data in jpegs]


def fit_tensor(image_CHW: Tensor, preprocess: Preprocess) -> Tensor:
    """`fit.fit` for decoded pixels on a device: uint8 [3, h, w] to uint8 [H, W, 3].

    Rounds to whole numbers after each direction, as Pillow does: without, cosines fall from 0.9994 to 0.9989.
    """
    _, height, width = image_CHW.shape
    to_width, to_height = resized_size((width, height), preprocess)
    steps = [(height, to_width), (to_height, to_width)]
    if height > 2 * width and to_height < height:  # Pillow's order
        steps[0] = (to_height, width)
    pixels = image_CHW[None].float()
    for size in steps:
        if size != pixels.shape[2:]:
            pixels = functional.interpolate(pixels, size, mode=resampling_name(preprocess), antialias=True)
            pixels = pixels.add_(0.5).floor_().clamp_(0, 255)  # halves upwards
    return _center_crop_or_pad(pixels[0], preprocess).permute(1, 2, 0).to(torch.uint8)


def _center_crop_or_pad(pixels_CHW: Tensor, preprocess: Preprocess) -> Tensor:
    _, height, width = pixels_CHW.shape
    more_height, more_width = max(0, preprocess.height - height), max(0, preprocess.width - width)
    if more_height or more_width:
        left, top = more_width // 2, more_height // 2
        sides = (left, more_width - left, top, more_height - top)
        pixels_CHW = functional.pad(pixels_CHW, sides, value=preprocess.fill_color)
        return _center_crop_or_pad(pixels_CHW, preprocess)
    left, top = round((width - preprocess.width) / 2), round((height - preprocess.height) / 2)
    return pixels_CHW[:, top : top + preprocess.height, left : left + preprocess.width]
