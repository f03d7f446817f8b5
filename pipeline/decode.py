"""From files to uint8 pixels at the model's size. Home of Pillow in the pipeline; no torch.

An image that fails is a record with its reason and a slot of zeros, so that batches keep their shape. Resizing and
cropping are open_clip's, to the pixel, on RGB images. Modes other than RGB are converted first: alpha is dropped,
16-bit grey is scaled (not clipped), the first frame of an animation is taken, EXIF rotation is honoured.
"""

import faulthandler
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from pipeline.errors import SourceUnavailable, first_line
from pipeline.schema import ImageRecord
from pipeline.source.entry import ImageEntry
from pipeline.source.location import TooLarge, reason_of
from pipeline.source.reading import MAX_FILE_BYTES, read_image
from pipeline.spec import DEFAULT_MAX_PIXELS, Preprocess

_DRAFT_MARGIN = 2
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class _Rejected(Exception):
    """An image that becomes a failed row: (status, reason)."""


def decode_batch(
    entries: Sequence[ImageEntry],
    preprocess: Preprocess,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    timeout_s: float | None = None,
) -> tuple[np.ndarray, list[ImageRecord]]:
    """Decode images to the tower's input size.

    Args:
        entries: The batch, in plan order; those without bytes are read from where their `uri` says.
        preprocess: Target size and how to reach it.
        max_pixels: Larger images are refused before their pixels are decoded.
        timeout_s: End this process if one image takes longer, for a decoder that hangs cannot be stopped otherwise.

    Returns:
        `(pixels, records)`: uint8 [B, H, W, 3], zeros where an image failed; one record per entry.

    Raises:
        SourceUnavailable: If the server of an image does not answer.
    """
    pixels = np.zeros((len(entries), preprocess.height, preprocess.width, 3), dtype=np.uint8)
    records = [
        _decode_into(pixels[slot], entry, preprocess, max_pixels, timeout_s) for slot, entry in enumerate(entries)
    ]
    return pixels, records


def failed_record(entry: ImageEntry, status: str, reason: str) -> ImageRecord:
    """The record of an image of which nothing else is known."""
    return ImageRecord(entry.key, entry.uri, entry.caption, None, None, None, status, reason, entry.extra)


def _decode_into(
    slot: np.ndarray, entry: ImageEntry, preprocess: Preprocess, max_pixels: int, timeout_s: float | None
) -> ImageRecord:
    width = height = digest = None
    status, reason = "ok", None
    try:
        data = _bytes_of(entry)
        digest = hashlib.sha256(data).hexdigest()
        with _ending_this_process_after(timeout_s):
            image = _open(data)
            if max(image.size) >= 2**31:  # more than the columns hold
                raise _Rejected("too_large", f"{image.width} x {image.height} pixels, the limit is {max_pixels}")
            width, height = image.size
            if width * height > max_pixels:
                raise _Rejected("too_large", f"{width} x {height} pixels, the limit is {max_pixels}")
            _refuse_extreme_shape(image, preprocess)
            draft_size = _draft(image, preprocess)
            image = to_rgb(image)
            if image.size != draft_size:  # turned upright
                width, height = height, width
            slot[:] = np.asarray(fit(image, preprocess, (width, height)))
    except _Rejected as rejected:
        status, reason = rejected.args
    except SourceUnavailable:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds; each costs this one image
        status, reason = "undecodable", first_line(error)
    if status != "ok":
        slot[:] = 0
    return ImageRecord(entry.key, entry.uri, entry.caption, width, height, digest, status, reason, entry.extra)


def fit(image: Image.Image, preprocess: Preprocess, full_size: tuple[int, int] | None = None) -> Image.Image:
    """Resize and crop an RGB image as open_clip's inference transform does.

    Only what is left after the crop is computed. Source of the rounding: torchvision's `Resize` and `CenterCrop`,
    open_clip's `ResizeKeepRatio` and `CenterCropOrPad`; equality with them is a test.

    Args:
        image: The image, or a smaller draft of it.
        preprocess: Target size and how to reach it.
        full_size: Width and height of the image itself, where `image` is a draft.
    """
    height, width = preprocess.height, preprocess.width
    resampling = _RESAMPLING[preprocess.interpolation]
    if preprocess.resize_mode == "squash":
        return image.resize((width, height), resampling)
    if preprocess.resize_mode == "shortest" and height != width:
        resampling = Image.Resampling.BICUBIC  # open_clip ignores the setting for non-square targets
    size = _resized(full_size or image.size, preprocess)
    is_reduced = size[0] < image.width and size[1] < image.height
    # Pillow resizes tall images down first and then across, which rounds otherwise than what is done for crops
    if not is_reduced or size[0] < width or size[1] < height or image.height >= 2 * image.width:
        resized = image if size == image.size else image.resize(size, resampling)
        return _center_crop_or_pad(resized, width, height, preprocess.fill_color)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return _resize_part(image, size, (left, top, left + width, top + height), resampling)


def _resize_part(
    image: Image.Image, size: tuple[int, int], part: tuple[int, int, int, int], resampling: Image.Resampling
) -> Image.Image:
    """`image.resize(size).crop(part)` without computing the rest: across first and then down, as Pillow does."""
    left, top, right, bottom = part
    across, down = image.width / size[0], image.height / size[1]
    first, last = top * down, min(image.height, bottom * down)
    reach = 2 * down + 1  # of the widest filter here, bicubic
    begin, end = max(0, math.floor(first - reach)), min(image.height, math.ceil(last + reach))
    box = (left * across, begin, min(image.width, right * across), end)
    rows = image.resize((right - left, end - begin), resampling, box=box)
    return rows.resize((right - left, bottom - top), resampling, box=(0, first - begin, right - left, last - begin))


def _resized(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Width and height that open_clip resizes an image to, before it crops."""
    width, height = size
    if preprocess.resize_mode == "shortest" and preprocess.height == preprocess.width:
        short = min(size)
        return tuple(preprocess.height if side == short else int(preprocess.height * side / short) for side in size)
    choose = max if preprocess.resize_mode == "longest" else min
    ratio = choose(height / preprocess.height, width / preprocess.width)
    # open_clip fails where a strip's short side would vanish; it keeps one pixel here
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _draft(image: Image.Image, preprocess: Preprocess) -> tuple[int, int]:
    """Have a JPEG decoded at a half, a quarter or an eighth, where that is still twice the size it is resized to.

    libjpeg does so while decoding, at a fraction of the cost; from twice the size on, resizing hides the difference.
    Returns the size that will be decoded.
    """
    target = (preprocess.width, preprocess.height)
    if preprocess.resize_mode != "squash":
        # the tighter of both orientations: whether the image lies on its side is known only later
        target = _resized(image.size, preprocess)
        turned = _resized(image.size[::-1], preprocess)
        target = (max(target[0], turned[1]), max(target[1], turned[0]))
    spare = min(image.width / target[0], image.height / target[1]) / _DRAFT_MARGIN
    factor = next((factor for factor in (8, 4, 2) if spare >= factor), 1)
    if factor > 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (image.width // factor, image.height // factor))
    return image.size


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
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        image = Image.fromarray((values / 257).clip(0, 255).round().astype(np.uint8))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        scale = 255 if values.max() <= 1 else 1  # floats in [0, 1], or 8-bit values as floats
        image = Image.fromarray((values * scale).clip(0, 255).astype(np.uint8))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")  # converting copies


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except Exception as error:
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else first_line(error)
        raise _Rejected("undecodable", f"{reason} ({len(data)} bytes)") from error


@cache
def _formats() -> list[str]:
    """What Pillow may open here; settles its ways on the first call in a process."""
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours, and says which image and how large
    Image.init()
    with suppress(ImportError):  # HEIC is a plugin's
        from pillow_heif import register_heif_opener

        register_heif_opener()
    # PostScript is a program: Pillow would hand it to Ghostscript
    return [name for name in Image.ID if name != "EPS"]


def _refuse_extreme_shape(image: Image.Image, preprocess: Preprocess) -> None:
    # Scaling the short side of a 1 x 60,000 strip up to the target would make an image of gigabytes. The limit is not
    # --max-pixels: a low one must not refuse small images for being scaled up to the tower's size.
    limit = DEFAULT_MAX_PIXELS
    scale = max(preprocess.height, preprocess.width) / min(image.size)
    if preprocess.resize_mode == "shortest" and image.width * image.height * scale**2 > limit:
        raise _Rejected("too_large", f"{image.width} x {image.height} would pass {limit} pixels when resized")


def open_rgb(uri: str) -> Image.Image:
    """Read, open and load one image as upright RGB; raises what reading and Pillow raise."""
    return to_rgb(_open(read_image(uri)))


def _bytes_of(entry: ImageEntry) -> bytes:
    if entry.data is not None:
        if entry.num_bytes > MAX_FILE_BYTES:
            raise _Rejected("too_large", f"{entry.num_bytes} bytes, the limit is {MAX_FILE_BYTES}")
        return entry.data
    try:
        return read_image(entry.uri)
    except TooLarge as error:
        raise _Rejected("too_large", str(error)) from error
    except OSError as error:
        raise _Rejected("unreadable", reason_of(error)) from error


@contextmanager
def _ending_this_process_after(seconds: float | None) -> Iterator[None]:
    # A decoder that hangs in C does not look at Python's signals; faulthandler's thread needs no lock to end it.
    if seconds is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _center_crop_or_pad(image: Image.Image, width: int, height: int, fill: int) -> Image.Image:
    if image.width < width or image.height < height:
        canvas = Image.new("RGB", (max(width, image.width), max(height, image.height)), (fill,) * 3)
        canvas.paste(image, ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
        return _center_crop_or_pad(canvas, width, height, fill)
    left = round((image.width - width) / 2)
    top = round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
