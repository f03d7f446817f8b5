"""From files to uint8 pixels at the model's size. With Pillow; no torch.

An image that fails becomes a result with a reason and a slot of zeros, so batches keep their shape. On RGB images,
resizing and cropping match open_clip to the pixel. Other modes are converted to RGB first: alpha is dropped, 16-bit
grey is scaled (not clipped), animations give their first frame, and EXIF rotation is applied.
"""

import faulthandler
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache

import numpy as np
from PIL import ExifTags, Image, ImageOps

from pipeline.errors import SourceUnavailable, first_line
from pipeline.model.spec import Preprocess
from pipeline.pixels.batch import DecodedBatch
from pipeline.pixels.resize import downscale_factor, fit
from pipeline.source.access.location import TooLarge, reason_of
from pipeline.source.entry import ImageEntry, ImageResult, Status
from pipeline.source.limits import DEFAULT_MAX_PIXELS, MAX_FILE_BYTES
from pipeline.source.reading import read_image

_DRAFT_MARGIN = 2
_CHROMA_MARGIN = 8
_MAX_DEVICE_PIXELS = 2**26
_END_OF_JPEG = b"\xff\xd9"


class _Rejected(Exception):
    """The image becomes a failed row. Arguments: status, reason."""


def decode_batch(
    entries: Sequence[ImageEntry],
    preprocess: Preprocess,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    timeout_s: float | None = None,
) -> DecodedBatch:
    """Decode images to the tower's input size.

    Args:
        entries: The batch, in plan order. Entries without bytes are read from their `uri`.
        preprocess: Target size and how to reach it.
        max_pixels: Larger images are refused before their pixels are decoded.
        timeout_s: End this process if one image takes longer than this. There is no other way to stop a hanging
            decoder.

    Raises:
        SourceUnavailable: If the server of an image does not respond.
    """
    return _decode(entries, preprocess, max_pixels, timeout_s, lambda image, data, preprocess: False)


def decode_all_but_jpegs(
    entries: Sequence[ImageEntry],
    preprocess: Preprocess,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    timeout_s: float | None = None,
) -> DecodedBatch:
    """Decode as `decode_batch`, but if `preprocess` names torchvision, leave JPEGs that a device can decode encoded."""
    if preprocess.decoder == "pillow":
        return decode_batch(entries, preprocess, max_pixels, timeout_s)
    return _decode(entries, preprocess, max_pixels, timeout_s, _suits_a_device)


def _decode(
    entries: Sequence[ImageEntry],
    preprocess: Preprocess,
    max_pixels: int,
    timeout_s: float | None,
    is_left: Callable[[Image.Image, bytes, Preprocess], bool],
) -> DecodedBatch:
    started = time.process_time()
    pixels = np.zeros((len(entries), preprocess.height, preprocess.width, 3), dtype=np.uint8)
    results, jpegs = [], {}
    for slot, entry in enumerate(entries):
        result, data = _decode_into(pixels[slot], entry, preprocess, max_pixels, timeout_s, is_left)
        results.append(result)
        if data is not None:
            jpegs[slot] = np.frombuffer(data, np.uint8)
    pixels = np.delete(pixels, list(jpegs), axis=0) if jpegs else pixels
    cpu_s = time.process_time() - started
    return DecodedBatch(entries=entries, pixels=pixels, results=results, jpegs=jpegs, cpu_s=cpu_s)


def _decode_into(
    slot: np.ndarray,
    entry: ImageEntry,
    preprocess: Preprocess,
    max_pixels: int,
    timeout_s: float | None,
    is_left: Callable[[Image.Image, bytes, Preprocess], bool],
) -> tuple[ImageResult, bytes | None]:
    """Decode one image, or return its bytes for the device to decode."""
    width = height = digest = left = None
    status, reason = Status.OK, None
    try:
        data = _bytes_of(entry)
        digest = hashlib.sha256(data).hexdigest()
        with ending_this_process_after(timeout_s):
            image = _open(data)
            if max(image.size) >= 2**31:  # does not fit the int32 columns
                raise _Rejected(Status.TOO_LARGE, _too_many_pixels(image, max_pixels))
            width, height = image.size
            if width * height > max_pixels:
                raise _Rejected(Status.TOO_LARGE, _too_many_pixels(image, max_pixels))
            _refuse_extreme_shape(image, preprocess)
            if is_left(image, data, preprocess):
                left = data
            else:
                draft_size = _draft(image, preprocess)
                image = to_rgb(image)
                if image.size != draft_size:  # rotated
                    width, height = height, width
                slot[:] = np.asarray(fit(image, preprocess, (width, height)))
    except _Rejected as rejected:
        status, reason = rejected.args
    except SourceUnavailable:
        raise
    except Exception as error:  # Pillow's decoders raise many types; each fails only this image
        status, reason = Status.UNDECODABLE, first_line(error)
    if status != Status.OK:
        slot[:] = 0
    return ImageResult.of(entry, status, reason, width=width, height=height, sha256=digest), left


def _too_many_pixels(image: Image.Image, max_pixels: int) -> str:
    return f"{image.width} x {image.height} pixels, the limit is {max_pixels}"


def _suits_a_device(image: Image.Image, data: bytes, preprocess: Preprocess) -> bool:
    """Whether a device decodes the image to Pillow's pixels: true for upright, complete RGB JPEGs.

    Where chroma is stored at half size, nvJPEG as torchvision runs it repeats values, but libjpeg interpolates. That
    shifts embeddings (cosines down to 0.978) unless resizing hides the difference.
    """
    if image.format != "JPEG" or image.mode != "RGB" or image.info.get("adobe_transform", 1) != 1:
        return False
    if not data.endswith(_END_OF_JPEG) or image.width * image.height > _MAX_DEVICE_PIXELS:
        return False
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            return False
    except Exception:  # damaged EXIF data, which Pillow tolerates; leave the image to Pillow
        return False
    has_full_chroma = len({component[1:3] for component in image.layer}) == 1
    return has_full_chroma or downscale_factor(image.size, preprocess) >= _CHROMA_MARGIN


def _draft(image: Image.Image, preprocess: Preprocess) -> tuple[int, int]:
    """Set a JPEG to be decoded at 1/2, 1/4 or 1/8, if that is at least twice its target size. Return the decoded size.

    libjpeg scales while decoding, at a fraction of the cost. At twice the target size or more, resizing hides the
    difference.
    """
    times = downscale_factor(image.size, preprocess) / _DRAFT_MARGIN
    factor = next((factor for factor in (8, 4, 2) if times >= factor), 1)
    if factor > 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (image.width // factor, image.height // factor))
    return image.size


def to_rgb(image: Image.Image) -> Image.Image:
    """Load an opened image as upright RGB, whatever its mode."""
    image.load()
    with suppress(Exception):  # damaged EXIF data has no usable rotation, but the pixels are good
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
    return image if image.mode == "RGB" else image.convert("RGB")  # convert() copies


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except Exception as error:
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else first_line(error)
        raise _Rejected(Status.UNDECODABLE, f"{reason} ({len(data)} bytes)") from error


@cache
def _formats() -> list[str]:
    """Formats that Pillow may open. The first call in a process configures Pillow."""
    Image.MAX_IMAGE_PIXELS = None  # replaced by our own limit, which reports the image and its size
    Image.init()
    with suppress(ImportError):  # HEIC needs a plugin
        from pillow_heif import register_heif_opener

        register_heif_opener()
    # PostScript is code, which Pillow would run in Ghostscript
    return [name for name in Image.ID if name != "EPS"]


def _refuse_extreme_shape(image: Image.Image, preprocess: Preprocess) -> None:
    # Scaling the short side of a 1 x 60,000 strip up to the target would give an image of gigabytes. The limit is not
    # --max-pixels, because a low value must not refuse small images that are scaled up to the tower's size.
    limit = DEFAULT_MAX_PIXELS
    scale = max(preprocess.height, preprocess.width) / min(image.size)
    if preprocess.resize_mode == "shortest" and image.width * image.height * scale**2 > limit:
        raise _Rejected(Status.TOO_LARGE, f"{image.width} x {image.height} would exceed {limit} pixels when resized")


def open_rgb(uri: str) -> Image.Image:
    """Read, open and load one image as upright RGB. Raises whatever reading and Pillow raise."""
    return to_rgb(_open(read_image(uri)))


def _bytes_of(entry: ImageEntry) -> bytes:
    if entry.data is not None:
        if entry.num_bytes > MAX_FILE_BYTES:
            raise _Rejected(Status.TOO_LARGE, f"{entry.num_bytes} bytes, the limit is {MAX_FILE_BYTES}")
        return entry.data
    try:
        return read_image(entry.uri)
    except TooLarge as error:
        raise _Rejected(Status.TOO_LARGE, str(error)) from error
    except OSError as error:
        raise _Rejected(Status.UNREADABLE, reason_of(error)) from error


@contextmanager
def ending_this_process_after(seconds: float | None) -> Iterator[None]:
    """End this process if the block takes longer. A process has only one such timer, so blocks cannot be nested."""
    # a decoder that hangs in C never handles Python's signals; faulthandler's thread does not need the GIL
    if seconds is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
