"""What to install to read a kind of file that this Pillow cannot read."""

from functools import cache

from PIL import features

from pipeline.pixels.formats.boxes import JPEG_2000

_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_REINSTALL = "pip install --force-reinstall --only-binary pillow pillow"


def missing_decoder(data: bytes, error: Exception) -> str | None:
    """What to install to read this file, None if its decoder is there or its kind is unknown."""
    brands = _brands_of(data)
    if brands & _AVIF_BRANDS:
        is_known, reason = "avif" in _supported(), 'AVIF image, and this Pillow has no AVIF: pip install "pillow>=11.3"'
    elif brands & _HEIF_BRANDS:
        is_known, reason = has_pillow_heif(), "HEIC image, and pillow-heif is missing: pip install pillow-heif"
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        is_known, reason = "webp" in _supported(), f"WebP image, and this Pillow has no WebP: {_REINSTALL}"
    elif data.startswith(JPEG_2000):
        is_known, reason = "jpg_2000" in _supported(), f"JPEG 2000 image, and this Pillow has no OpenJPEG: {_REINSTALL}"
    elif data.startswith(_JPEG_XL):
        is_known, reason = False, "JPEG XL image, a format that is not supported: convert it to PNG or JPEG"
    else:
        is_known = "decoder libtiff not available" not in str(error)
        reason = f"compressed TIFF image, and this Pillow has no libtiff: {_REINSTALL}"
    return None if is_known else reason


@cache
def has_pillow_heif() -> bool:
    """Whether HEIC can be read."""
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def _supported() -> frozenset[str]:
    return frozenset(features.get_supported())


def _brands_of(data: bytes) -> set[bytes]:
    """What a HEIF or AVIF says it is; empty for other files."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 1024)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
