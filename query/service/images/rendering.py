"""What a decode process does with one image. Everything here may hang, or end the process."""

import io
from collections.abc import Callable
from typing import Any

from PIL import Image

from pipeline.errors import SourceUnavailable
from pipeline.model.spec import Preprocess
from pipeline.pixels.decode import decode_batch, ending_this_process_after
from pipeline.pixels.opening import (
    load_if_pixels_are_whole,
    open_image,
    refusing_inner_images_above,
    to_rgb,
    why_undecodable,
)
from pipeline.source.access.failures import reason_to_read_later
from pipeline.source.entry import ImageEntry, Status
from pipeline.source.limits import DEFAULT_MAX_PIXELS
from pipeline.source.reading import read_image
from query.service.images.messages import MEDIA_TYPES, Message

THUMB_SIDE = 320
"""Longest side of a thumbnail, in pixels."""
CONVERTED_SIDE = 4096
"""Longest side of an original that had to be converted."""
MOST_PASSED = 32_000_000
"""Bytes of the largest original that is passed on as it is."""


class _NoImageError(Exception):
    """Why there is no image."""


def answer(task: dict[str, Any], data: bytes) -> Message:
    """Do one task.

    Args:
        task: `do` says what, `limit_s` after how many seconds this process ends; the rest depends on `do`.
        data: The file of an image that a client sent.

    Returns:
        A header with `status` and, if that is not ok, `reason`; then the result.
    """
    if task["do"] == "pixels":
        return _pixels(data, Preprocess.model_validate(task["preprocess"]), task["max_pixels"], task["limit_s"])
    render = {"thumbnail": _thumbnail, "original": _original}[task["do"]]
    try:
        with ending_this_process_after(task["limit_s"]):
            result, media_type = render(_read(task["uri"]))
    except _NoImageError as error:
        return {"status": Status.UNREADABLE, "reason": str(error)}, b""
    return {"status": Status.OK, "media_type": media_type}, result


def _pixels(data: bytes, preprocess: Preprocess, max_pixels: int, limit_s: float) -> Message:
    """Decode an image that a client sent, as `embed` does: uint8 [H, W, 3]."""
    batch = decode_batch([ImageEntry("", "", len(data), 0, data=data)], preprocess, max_pixels, limit_s)
    if failed := batch.first_failed():
        return {"status": failed.status, "reason": failed.error}, b""
    return {"status": Status.OK}, batch.pixels.tobytes()


def _thumbnail(data: bytes) -> tuple[bytes, str]:
    image = _load(data, THUMB_SIDE)
    image.thumbnail((THUMB_SIDE, THUMB_SIDE))
    return _saved(image, "WEBP", quality=80, method=2), "image/webp"


def _original(data: bytes) -> tuple[bytes, str]:
    """The file itself if browsers show it, else a JPEG of it. What it is, its content says; never its name."""
    media_type = MEDIA_TYPES.get(_checked(data, _open).format or "")
    if media_type and len(data) <= MOST_PASSED:
        return data, media_type
    image = _load(data, CONVERTED_SIDE)
    image.thumbnail((CONVERTED_SIDE, CONVERTED_SIDE))
    return _saved(image, "JPEG", quality=90), "image/jpeg"


def _load(data: bytes, side: int) -> Image.Image:
    """Load an image as upright RGB; a JPEG at a fraction of its size, as long as that is no smaller than `side`."""

    def load(version: bytes) -> Image.Image:
        image = _open(version)
        share = min(1, side / max(image.size))
        image.draft(None, tuple(max(1, round(share * length)) for length in image.size))  # type: ignore[arg-type]
        with refusing_inner_images_above(DEFAULT_MAX_PIXELS):
            return to_rgb(image)

    return _checked(data, load)


def _open(data: bytes) -> Image.Image:
    image = open_image(data, DEFAULT_MAX_PIXELS)
    if image.width * image.height > DEFAULT_MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, the limit is {DEFAULT_MAX_PIXELS}")
    return image


def _checked(data: bytes, load: Callable[[bytes], Image.Image]) -> Image.Image:
    try:
        return load_if_pixels_are_whole(data, load)
    except MemoryError as error:
        raise _NoImageError("it needs too much memory") from error
    except Exception as error:  # Pillow's decoders raise many types
        raise _NoImageError(why_undecodable(data, error)) from error


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()  # Pillow writes no metadata unless it is told to
    image.save(file, kind, **options)
    return file.getvalue()


def _read(uri: str) -> bytes:
    """Read an image from wherever the store says that it is. Reasons name no path: clients need not know it."""
    try:
        return read_image(uri)
    except SourceUnavailable as error:
        raise _NoImageError(reason_to_read_later(error.__cause__ or error, uri)) from error
    except FileNotFoundError as error:
        raise _NoImageError("its file is no longer there") from error
    except OSError as error:
        raise _NoImageError(reason_to_read_later(error, uri)) from error
