"""From files to uint8 pixels at the model's size. With Pillow; no torch.

An image that fails becomes a result with a reason and a slot of zeros, so batches keep their shape. On RGB images,
resizing and cropping match open_clip to the pixel. Other modes are converted to RGB first: alpha is dropped, 16-bit
grey is scaled (not clipped), animations give their first frame, and EXIF rotation is applied. Only the pixels of a
file must be undamaged: see `opening`.
"""

import faulthandler
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from pipeline.errors import SourceUnavailable, first_line
from pipeline.model.spec import Preprocess
from pipeline.pixels.batch import DecodedBatch
from pipeline.pixels.formats import jpeg
from pipeline.pixels.opening import (
    load_if_pixels_are_whole,
    open_image,
    refusing_inner_images_above,
    to_rgb,
    why_undecodable,
)
from pipeline.pixels.resize import downscale_factor, fit
from pipeline.source.access.location import TooLarge, reason_of
from pipeline.source.entry import ImageEntry, ImageResult, Status
from pipeline.source.limits import DEFAULT_MAX_PIXELS, MAX_FILE_BYTES
from pipeline.source.reading import read_image

_DRAFT_MARGIN = 2
_CHROMA_MARGIN = 8
_MAX_DEVICE_PIXELS = 2**26


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
    known: dict[str, Any] = {}
    data, left = b"", None

    def load(version: bytes) -> Image.Image:
        nonlocal left
        image = open_image(version, max_pixels)
        _refuse_large(image, preprocess, max_pixels, known)
        if version is data and is_left(image, data, preprocess):
            left = data
            return image
        return _loaded(image, preprocess, max_pixels, known)

    status, reason = Status.OK, None
    try:
        data = _bytes_of(entry)
        known["sha256"] = hashlib.sha256(data).hexdigest()
        with ending_this_process_after(timeout_s):
            image = load_if_pixels_are_whole(data, load)
            if left is None:
                slot[:] = np.asarray(fit(image, preprocess, (known["width"], known["height"])))
    except _Rejected as rejected:
        status, reason = rejected.args
    except SourceUnavailable:
        raise
    except Image.DecompressionBombError as error:
        status, reason = Status.TOO_LARGE, first_line(error)
    except Exception as error:  # Pillow's decoders raise many types; each fails only this image
        status, reason = Status.UNDECODABLE, why_undecodable(data, error)
    if status != Status.OK:
        slot[:] = 0
    return ImageResult.of(entry, status, reason, **known), left


def _refuse_large(image: Image.Image, preprocess: Preprocess, max_pixels: int, known: dict[str, Any]) -> None:
    """Note the size of an opened image, if it fits the int32 columns. Refuse it if it is too large."""
    if max(image.size) < 2**31:
        known.update(width=image.width, height=image.height)
    if max(image.size) >= 2**31 or image.width * image.height > max_pixels:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, the limit is {max_pixels}")
    _refuse_extreme_shape(image, preprocess)


def _loaded(image: Image.Image, preprocess: Preprocess, max_pixels: int, known: dict[str, Any]) -> Image.Image:
    """Load an opened image, or a draft of it, as upright RGB, and correct its known size."""
    draft_size = _draft(image, preprocess)
    with refusing_inner_images_above(max_pixels):
        image = to_rgb(image)
    if image.size == draft_size[::-1] != draft_size:  # rotated
        known.update(width=known["height"], height=known["width"])
    elif image.size != draft_size:  # an icon whose directory was wrong
        _refuse_large(image, preprocess, max_pixels, known)
    return image


def _suits_a_device(image: Image.Image, data: bytes, preprocess: Preprocess) -> bool:
    """Whether a device decodes the image to Pillow's pixels: true for upright, complete, undamaged RGB JPEGs.

    Where chroma is stored at half size, nvJPEG as torchvision runs it repeats values, but libjpeg interpolates. That
    shifts embeddings (cosines down to 0.978) unless resizing hides the difference.
    """
    if image.format != "JPEG" or image.mode != "RGB" or image.info.get("adobe_transform", 1) != 1:
        return False
    if not data.endswith(jpeg.END) or not jpeg.has_whole_header(data):
        return False
    if image.width * image.height > _MAX_DEVICE_PIXELS:
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


def _refuse_extreme_shape(image: Image.Image, preprocess: Preprocess) -> None:
    # Scaling the short side of a 1 x 60,000 strip up to the target would give an image of gigabytes. The limit is not
    # --max-pixels, because a low value must not refuse small images that are scaled up to the tower's size.
    limit = DEFAULT_MAX_PIXELS
    scale = max(preprocess.height, preprocess.width) / min(image.size)
    if preprocess.resize_mode == "shortest" and image.width * image.height * scale**2 > limit:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} would exceed {limit} pixels when resized")


def open_rgb(uri: str) -> Image.Image:
    """Read, open and load one image as upright RGB. Raises whatever reading and Pillow raise."""
    return load_if_pixels_are_whole(read_image(uri), lambda data: to_rgb(open_image(data)))


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
