"""Open image files with Pillow and load them as RGB. Only the pixels must be undamaged."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from warnings import filterwarnings

import numpy as np
from PIL import Image, ImageOps

from pipeline.errors import first_line
from pipeline.pixels.formats import boxes, gif, jpeg, jpeg_end, png, tiff, webp
from pipeline.pixels.missing_decoder import has_pillow_heif, missing_decoder
from pipeline.source.limits import DEFAULT_MAX_PIXELS

_ICON = b"\0\0\1\0"


def load_if_pixels_are_whole(data: bytes, load: Callable[[bytes], Image.Image]) -> Image.Image:
    """Load an image from a file; if that fails, from the file without its metadata.

    PNGs are loaded without metadata at once, because Pillow would decompress their texts, and so are GIFs with damaged
    extensions, because Pillow would look for an image inside them.

    Args:
        data: The file.
        load: Opens and loads a file. It may be called several times, with changed files.

    Raises:
        Image.DecompressionBombError: If `load` finds the image too large.
        Exception: Whatever `load` raises for the file as it is; also if it is a JPEG that ends before its last pixels.
    """
    if data.startswith(png.SIGNATURE):
        return load(png.without_metadata(data))
    if data.startswith(gif.SIGNATURE):
        return load(gif.without_damaged_extensions(data) or data)
    try:
        return _load_to_the_end(data, load)
    except Image.DecompressionBombError:
        raise
    except Exception as error:
        bare = _without_metadata(data)
        if bare is None or bare == data:
            raise
        try:
            return _load_to_the_end(bare, load)
        except Image.DecompressionBombError:
            raise
        except Exception:
            raise error from None


def _load_to_the_end(data: bytes, load: Callable[[bytes], Image.Image]) -> Image.Image:
    """Load an image; a JPEG without end mark only if all its pixels are there."""
    if not data.startswith(jpeg.START) or not jpeg_end.lacks_end(data):
        return load(data)
    images = map(load, jpeg_end.completions(data))
    image = next(images, None)
    if image is None or not all(np.array_equal(np.asarray(image), np.asarray(other)) for other in images):
        raise ValueError("the file is truncated: it ends before the last pixels of its JPEG")
    return image


def _without_metadata(data: bytes) -> bytes | None:
    if data.startswith(jpeg.START):
        return jpeg.without_metadata(data)
    if data.startswith(webp.SIGNATURE):
        return webp.without_metadata(data)
    if data.startswith(tiff.SIGNATURES):
        return tiff.without_metadata(data)
    if data.startswith(boxes.JPEG_2000):
        return boxes.without_metadata(data)
    return boxes.without_items(data) if data.startswith(b"ftyp", 4) else None


def open_image(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Open a file without decoding its pixels; but Pillow decodes icons at once, so their images are limited here.

    Raises:
        Image.DecompressionBombError: If the image in an icon has more than `max_pixels`.
        Exception: Whatever Pillow raises.
    """
    formats = _formats()
    with refusing_inner_images_above(max_pixels) if data.startswith(_ICON) else nullcontext():
        return Image.open(io.BytesIO(data), formats=formats)


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


@contextmanager
def refusing_inner_images_above(max_pixels: int) -> Iterator[None]:
    """Raise DecompressionBombError if Pillow meets a larger image inside a file, as in an icon."""
    Image.MAX_IMAGE_PIXELS = max_pixels / 2  # Pillow warns above this, and refuses above twice this
    try:
        yield
    except Image.DecompressionBombError as error:
        raise Image.DecompressionBombError(f"an image inside it has more than {max_pixels} pixels") from error
    finally:
        Image.MAX_IMAGE_PIXELS = None


@cache
def _formats() -> list[str]:
    """Formats that Pillow may open. The first call in a process configures Pillow."""
    Image.MAX_IMAGE_PIXELS = None  # replaced by our own limit, which reports the image and its size
    filterwarnings("ignore", module=r"PIL\.")  # about metadata; an image that fails says so in its row
    Image.init()
    if has_pillow_heif():
        from pillow_heif import register_heif_opener

        register_heif_opener()
    # PostScript is code, which Pillow would run in Ghostscript
    return [name for name in Image.ID if name != "EPS"]


def why_undecodable(data: bytes, error: Exception) -> str:
    """The reason in the row of an image that could not be loaded, in one line."""
    if missing := missing_decoder(data, error):
        return missing
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image ({len(data)} bytes)"
    return first_line(error)
