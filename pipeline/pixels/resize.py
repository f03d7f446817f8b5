"""Resizing and cropping as open_clip's inference transform does it: sizes, rounding, and Pillow's pixels."""

import math

import numpy as np
from PIL import Image

from pipeline.model.spec import Preprocess


def fit(image: Image.Image, preprocess: Preprocess, full_size: tuple[int, int] | None = None) -> Image.Image:
    """Resize and crop an RGB image as open_clip's inference transform does.

    Computes only the pixels that remain after the crop. Source of the rounding: torchvision's `Resize` and
    `CenterCrop`, open_clip's `ResizeKeepRatio` and `CenterCropOrPad`. A test checks equality with them.

    Args:
        image: The image, or a smaller draft of it.
        preprocess: Target size and how to reach it.
        full_size: Width and height of the full image, if `image` is a draft.
    """
    height, width = preprocess.height, preprocess.width
    resampling = Image.Resampling[resampling_name(preprocess).upper()]
    size = resized_size(full_size or image.size, preprocess)
    is_reduced = size[0] < image.width and size[1] < image.height
    # Pillow resizes tall images vertically first, which rounds differently from `_resize_part`
    is_whole = preprocess.resize_mode == "squash" or image.height >= 2 * image.width
    if is_whole or not is_reduced or size[0] < width or size[1] < height:
        resized = image if size == image.size else image.resize(size, resampling)
        return _center_crop_or_pad(resized, width, height, preprocess.fill_color)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return _resize_part(image, size, (left, top, left + width, top + height), resampling)


def _resize_part(
    image: Image.Image, size: tuple[int, int], part: tuple[int, int, int, int], resampling: Image.Resampling
) -> Image.Image:
    """`image.resize(size).crop(part)` without computing the rest: horizontally first, as Pillow does."""
    left, top, right, bottom = part
    across, down = image.width / size[0], image.height / size[1]
    first, last = top * down, min(image.height, bottom * down)
    reach = 2 * down + 1  # support of bicubic, the widest filter used
    begin, end = max(0, math.floor(first - reach)), min(image.height, math.ceil(last + reach))
    box = (left * across, begin, min(image.width, right * across), end)
    rows = image.resize((right - left, end - begin), resampling, box=box)
    return rows.resize((right - left, bottom - top), resampling, box=(0, first - begin, right - left, last - begin))


def resampling_name(preprocess: Preprocess) -> str:
    """Bicubic or bilinear. For non-square targets in mode `shortest`, open_clip ignores the setting."""
    is_square = preprocess.height == preprocess.width
    return "bicubic" if preprocess.resize_mode == "shortest" and not is_square else preprocess.interpolation


def resized_size(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Width and height to which open_clip resizes an image before it crops."""
    if preprocess.resize_mode == "squash":
        return preprocess.width, preprocess.height
    width, height = size
    if preprocess.resize_mode == "shortest" and preprocess.height == preprocess.width:
        short = min(size)
        return tuple(preprocess.height if side == short else int(preprocess.height * side / short) for side in size)
    choose = max if preprocess.resize_mode == "longest" else min
    ratio = choose(height / preprocess.height, width / preprocess.width)
    # open_clip fails if a strip's short side rounds to zero; here it keeps one pixel
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def downscale_factor(size: tuple[int, int], preprocess: Preprocess) -> float:
    """By what factor an image will be downscaled: the smaller of the factors of its two directions."""
    target = (preprocess.width, preprocess.height)
    if preprocess.resize_mode != "squash":
        # the smaller factor of both orientations, because EXIF rotation is known only later
        target = resized_size(size, preprocess)
        turned = resized_size(size[::-1], preprocess)
        target = (max(target[0], turned[1]), max(target[1], turned[0]))
    return min(size[0] / target[0], size[1] / target[1])


def crop_and_resize(pixels_HWC: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Crop a picture and resize the crop to its full size. The box is left, top, right, bottom as fractions of it."""
    height, width, _ = pixels_HWC.shape
    left, top, right, bottom = box
    image = Image.fromarray(pixels_HWC)
    part = (left * width, top * height, right * width, bottom * height)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=part))


def _center_crop_or_pad(image: Image.Image, width: int, height: int, fill: int) -> Image.Image:
    if image.width < width or image.height < height:
        canvas = Image.new("RGB", (max(width, image.width), max(height, image.height)), (fill,) * 3)
        canvas.paste(image, ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
        return _center_crop_or_pad(canvas, width, height, fill)
    left = round((image.width - width) / 2)
    top = round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
