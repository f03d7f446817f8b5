"""Decode and resize JPEGs on a device through torchvision: nvJPEG on a GPU, libjpeg on a CPU.

The same code runs on both, so everything but nvJPEG itself can be tested against open_clip's pixels without a GPU.
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
        jpegs: Encoded bytes, each uint8 [N].
        device: Where to decode. The pixels stay there.

    Returns:
        Images, each uint8 [3, H, W], or None if the decoder refuses a file. EXIF rotation is ignored.
    """
    encoded = [torch.tensor(data) for data in jpegs]  # copied, because torch warns about Ray's read-only arrays
    try:
        return decode_jpeg(encoded, ImageReadMode.RGB, device)
    except RuntimeError:  # one bad file fails the whole call
        if len(encoded) == 1:
            return [None]
    return [decode_jpegs([data], device)[0] for data in jpegs]


def fit_tensors(images_BCHW: Tensor, preprocess: Preprocess) -> Tensor:
    """`resize.fit` for decoded pixels on a device: uint8 [B, 3, h, w] to uint8 [B, H, W, 3].

    Rounds to integers after each direction, as Pillow does. Without that, cosines drop from 0.9994 to 0.9989.
    """
    height, width = images_BCHW.shape[2:]
    to_width, to_height = resized_size((width, height), preprocess)
    steps = [(height, to_width), (to_height, to_width)]
    if height > 2 * width and to_height < height:  # Pillow's order
        steps[0] = (to_height, width)
    pixels = images_BCHW.float()
    for size in steps:
        if size != pixels.shape[2:]:
            pixels = functional.interpolate(pixels, size, mode=resampling_name(preprocess), antialias=True)
            pixels = pixels.add_(0.5).floor_().clamp_(0, 255)  # round half up
    return _center_crop_or_pad(pixels, preprocess).permute(0, 2, 3, 1).to(torch.uint8)


def _center_crop_or_pad(pixels_BCHW: Tensor, preprocess: Preprocess) -> Tensor:
    height, width = pixels_BCHW.shape[2:]
    more_height, more_width = max(0, preprocess.height - height), max(0, preprocess.width - width)
    if more_height or more_width:
        left, top = more_width // 2, more_height // 2
        sides = (left, more_width - left, top, more_height - top)
        pixels_BCHW = functional.pad(pixels_BCHW, sides, value=preprocess.fill_color)
        return _center_crop_or_pad(pixels_BCHW, preprocess)
    left, top = round((width - preprocess.width) / 2), round((height - preprocess.height) / 2)
    return pixels_BCHW[:, :, top : top + preprocess.height, left : left + preprocess.width]
