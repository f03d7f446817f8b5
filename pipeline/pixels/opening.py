"""Open image files with Pillow and load them as RGB. Only the pixels must be undamaged."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from warnings import filterwarnings

import numpy as np
from PIL import Image, ImageOps, features

from pipeline.errors import first_line
from pipeline.pixels.formats import boxes, gif, jpeg, jpeg_end, png, tiff, webp

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"mif1", b"msf1"}
_JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_OFFICIAL_PILLOW = "pip install --force-reinstall --only-binary :all: pillow"
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


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
    if data.startswith(b"GIF8"):
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
    with suppress(IndexError):  # the file ends too early
        if data.startswith(jpeg.START):
            return jpeg.without_metadata(data)
        if data.startswith(b"RIFF"):
            return webp.without_metadata(data)
        if data.startswith((b"II", b"MM")):
            return tiff.without_metadata(data)
        if data[4:8] == b"ftyp":
            return boxes.without_items(data)
        if data.startswith(_JPEG_2000):
            return boxes.without_metadata(data)
    return None


def open_image(data: bytes) -> Image.Image:
    """Open a file without decoding its pixels. Raises whatever Pillow raises."""
    return Image.open(io.BytesIO(data), formats=_formats())


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
    """Raise DecompressionBombError if loading meets an image of more pixels than its file said (in icons)."""
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
    if _has_pillow_heif():
        from pillow_heif import register_heif_opener

        register_heif_opener()
    # PostScript is code, which Pillow would run in Ghostscript
    return [name for name in Image.ID if name != "EPS"]


@cache
def _has_pillow_heif() -> bool:
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        return False
    return True


def why_undecodable(data: bytes, error: Exception) -> str:
    """The reason in the row of an image that could not be loaded, in one line."""
    if missing := _missing_decoder(data, error):
        return missing
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image ({len(data)} bytes)"
    return first_line(error)


def _missing_decoder(data: bytes, error: Exception) -> str | None:
    """What to install to read this kind of file, None if its decoder is there or the kind is unknown."""
    known = set(features.get_supported())
    brands = _brands_of(data)
    if brands & _AVIF_BRANDS:
        return None if "avif" in known else 'AVIF image, and this Pillow has no AVIF: pip install "pillow>=11.3"'
    if brands & (_HEIC_BRANDS | _HEIF_BRANDS):
        return None if _has_pillow_heif() else "HEIC image, and pillow-heif is missing: pip install pillow-heif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and "webp" not in known:
        return f"WebP image, and this Pillow has no WebP: {_OFFICIAL_PILLOW}"
    if data.startswith(_JPEG_2000) and "jpg_2000" not in known:
        return f"JPEG 2000 image, and this Pillow has no JPEG 2000: {_OFFICIAL_PILLOW}"
    if "decoder libtiff not available" in str(error):
        return f"compressed TIFF, and this Pillow has no libtiff: {_OFFICIAL_PILLOW}"
    if data.startswith(_JPEG_XL):
        return "JPEG XL image, a format that is not supported; convert it to PNG or JPEG"
    return None


def _brands_of(data: bytes) -> set[bytes]:
    """What a HEIF or AVIF says it is; empty for other files."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 1024)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
