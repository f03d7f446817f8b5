"""From files to uint8 pixels at the model's size. Home of Pillow in the pipeline; no torch.

An image that fails is a record with its reason and a slot of zeros, so that batches keep their shape. Resizing and
cropping are open_clip's, to the pixel, on RGB images. Modes other than RGB are converted first: alpha is dropped,
16-bit grey is scaled (not clipped), the first frame of an animation is taken, EXIF rotation is honoured.
"""

import hashlib
import io
import os
import stat
import urllib.parse
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps

from pipeline.schema import ImageRecord
from pipeline.source import ImageEntry
from pipeline.spec import DEFAULT_MAX_PIXELS, Preprocess

MAX_FILE_BYTES = 2**30
"""Larger files are refused unread: a decoder holds the file in memory."""

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class _Rejected(Exception):
    """An image that becomes a failed row: (status, reason)."""


def decode_batch(
    entries: Sequence[ImageEntry], preprocess: Preprocess, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[np.ndarray, list[ImageRecord]]:
    """Decode images to the tower's input size.

    Args:
        entries: The batch, in plan order.
        preprocess: Target size and how to reach it.
        max_pixels: Larger images are refused before their pixels are decoded.

    Returns:
        `(pixels, records)`: uint8 [B, H, W, 3], zeros where an image failed; one record per entry.
    """
    pixels = np.zeros((len(entries), preprocess.height, preprocess.width, 3), dtype=np.uint8)
    records = [_decode_into(pixels[slot], entry, preprocess, max_pixels) for slot, entry in enumerate(entries)]
    return pixels, records


def _decode_into(slot: np.ndarray, entry: ImageEntry, preprocess: Preprocess, max_pixels: int) -> ImageRecord:
    width = height = digest = None
    status, reason = "ok", None
    try:
        data = _read_bytes(entry.uri)
        digest = hashlib.sha256(data).hexdigest()
        image = _open(data)
        width, height = image.size
        if width * height > max_pixels:
            raise _Rejected("too_large", f"{width} x {height} pixels, the limit is {max_pixels}")
        image = to_rgb(image)
        width, height = image.size
        _refuse_extreme_shape(image, preprocess)
        slot[:] = np.asarray(fit(image, preprocess))
    except _Rejected as rejected:
        status, reason = rejected.args
    except Exception as error:  # Pillow's decoders raise many kinds; each costs this one image
        status, reason = "undecodable", _first_line(error)
    if status != "ok":
        slot[:] = 0
    return ImageRecord(entry.key, entry.uri, entry.caption, width, height, digest, status, reason)


def fit(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Resize and crop an RGB image as open_clip's inference transform does.

    Source of the rounding: torchvision's `Resize` and `CenterCrop`, open_clip's `ResizeKeepRatio` and
    `CenterCropOrPad`; equality with them is a test.
    """
    height, width = preprocess.height, preprocess.width
    resampling = _RESAMPLING[preprocess.interpolation]
    if preprocess.resize_mode == "squash":
        return image.resize((width, height), resampling)
    if preprocess.resize_mode == "shortest" and height == width:
        short = min(image.size)
        size = tuple(height if side == short else int(height * side / short) for side in image.size)
    else:
        choose = max if preprocess.resize_mode == "longest" else min
        ratio = choose(image.height / height, image.width / width)
        # open_clip fails where a strip's short side would vanish; it keeps one pixel here
        size = (max(1, round(image.width / ratio)), max(1, round(image.height / ratio)))
        if preprocess.resize_mode == "shortest":
            resampling = Image.Resampling.BICUBIC  # open_clip ignores the setting for non-square targets
    if size != image.size:
        image = image.resize(size, resampling)
    return _center_crop_or_pad(image, width, height, preprocess.fill_color)


def crop_and_resize(pixels_HWC: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Part of a picture at the size of the whole; the box is left, top, right, bottom in shares of its sides."""
    height, width, _ = pixels_HWC.shape
    left, top, right, bottom = box
    image = Image.fromarray(pixels_HWC)
    part = (left * width, top * height, right * width, bottom * height)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=part))


def to_rgb(image: Image.Image) -> Image.Image:
    """Load an opened image as upright RGB, whatever its mode."""
    image.load()
    with suppress(Exception):  # damaged EXIF data says nothing of the rotation; the pixels are good
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        image = Image.fromarray((values / 257).clip(0, 255).round().astype(np.uint8))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        scale = 255 if values.max() <= 1 else 1  # floats in [0, 1], or 8-bit values as floats
        image = Image.fromarray((values * scale).clip(0, 255).astype(np.uint8))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert("RGB")


def _open(data: bytes) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours, and says which image and how large
    Image.init()
    # PostScript is a program: Pillow would hand it to Ghostscript
    formats = [name for name in Image.ID if name != "EPS"]
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except Exception as error:
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else _first_line(error)
        raise _Rejected("undecodable", f"{reason} ({len(data)} bytes)") from error


def _refuse_extreme_shape(image: Image.Image, preprocess: Preprocess) -> None:
    # Scaling the short side of a 1 x 60,000 strip up to the target would make an image of gigabytes. The limit is not
    # --max-pixels: a low one must not refuse small images for being scaled up to the tower's size.
    limit = DEFAULT_MAX_PIXELS
    scale = max(preprocess.height, preprocess.width) / min(image.size)
    if preprocess.resize_mode == "shortest" and image.width * image.height * scale**2 > limit:
        raise _Rejected("too_large", f"{image.width} x {image.height} would pass {limit} pixels when resized")


def open_rgb(uri: str) -> Image.Image:
    """Read, open and load one image as upright RGB; raises what reading and Pillow raise."""
    return to_rgb(_open(_read_bytes(uri)))


def _read_bytes(uri: str) -> bytes:
    path = path_of(uri)
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer that never comes
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                kind = "a named pipe" if stat.S_ISFIFO(mode) else "no regular file"
                raise _Rejected("unreadable", f"is {kind}")
            num_bytes = os.fstat(file.fileno()).st_size
            if num_bytes > MAX_FILE_BYTES:
                raise _Rejected("too_large", f"{num_bytes} bytes, the limit is {MAX_FILE_BYTES}")
            return file.read()
    except OSError as error:
        raise _Rejected("unreadable", error.strerror or str(error)) from error


def path_of(uri: str) -> str:
    """Local path of a `file://` URI, byte for byte (names need not be UTF-8)."""
    return os.fsdecode(urllib.parse.unquote_to_bytes(uri.removeprefix("file://")))


def _center_crop_or_pad(image: Image.Image, width: int, height: int, fill: int) -> Image.Image:
    if image.width < width or image.height < height:
        canvas = Image.new("RGB", (max(width, image.width), max(height, image.height)), (fill,) * 3)
        canvas.paste(image, ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
        return _center_crop_or_pad(canvas, width, height, fill)
    left = round((image.width - width) / 2)
    top = round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _first_line(error: BaseException) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text[:200]
