"""PNG: a signature, then chunks of length, name, data and CRC-32."""

import re
import zlib
from collections.abc import Iterator

from pipeline.pixels.formats.spans import joined

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FRAME = 12  # length, name and CRC
_COLOUR_TYPE_AT = 25
_PALETTE = b"\3"
_RAW_EXIF = b"Raw profile type exif\0"  # as ImageMagick writes it
_XMP = b"XML:com.adobe.xmp\0\0"  # ends with the flag for "not compressed"
_STANDARD = frozenset(
    b"IHDR PLTE IDAT IEND acTL bKGD cHRM cICP cLLI eXIf fcTL fdAT gAMA hIST iCCP iTXt mDCV oFFs pCAL pHYs sBIT sCAL "
    b"sPLT sRGB sTER tEXt tIME tRNS zTXt".split()
)
_NEEDED = re.compile(rb"IHDR|PLTE|IDAT|IEND|eXIf")


def without_metadata(data: bytes) -> bytes:
    """The PNG with only its first image and its rotation. Nothing is decompressed.

    Rotation is in `eXIf`, or in text that is not compressed. Chunks of pixels are copied as they are, damaged or not.
    """
    spans, last, is_after_pixels = [(0, len(SIGNATURE))], b"", False
    for name, begin, end in _chunks(data):
        is_after_pixels |= last == b"IDAT" != name  # the chunks of an image are next to each other
        last = name
        if name == b"IDAT":
            is_kept = not is_after_pixels
        else:
            is_kept = name == b"IEND" or _is_of_pixels(data, name) or _may_rotate(data, name, begin, end)
        if is_kept:
            spans.append((begin, end))
        if name == b"IEND":
            break
    return joined(data, spans)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, begin and end of each chunk. After metadata with a wrong length, go on at the next sound chunk."""
    position = len(SIGNATURE)
    while position < len(data):
        name, end = data[position + 4 : position + 8], _end_of_chunk(data, position)
        if name == b"IEND" or _is_of_pixels(data, name):
            end = min(end, len(data))
        elif end > len(data) or not _is_followed_by_a_chunk(data, position, end):
            position = _next_sound_chunk(data, position + 8)
            continue
        yield name, position, end
        position = end


def _is_of_pixels(data: bytes, name: bytes) -> bool:
    if name == b"PLTE":  # in images without palette, only a suggestion
        return data[_COLOUR_TYPE_AT : _COLOUR_TYPE_AT + 1] == _PALETTE
    return name in (b"IHDR", b"IDAT")


def _may_rotate(data: bytes, name: bytes, begin: int, end: int) -> bool:
    text = data[begin + 8 : begin + 8 + len(_RAW_EXIF)]
    if name == b"tEXt":
        may_rotate = text == _RAW_EXIF
    elif name == b"iTXt":
        may_rotate = text.startswith(_XMP)
    else:
        may_rotate = name == b"eXIf"
    return may_rotate and _is_sound(data, begin, end)


def _end_of_chunk(data: bytes, begin: int) -> int:
    return begin + _FRAME + int.from_bytes(data[begin : begin + 4], "big")


def _is_followed_by_a_chunk(data: bytes, begin: int, end: int) -> bool:
    name = data[end + 4 : end + 8]
    return end == len(data) or name in _STANDARD or (name.isalpha() and _is_sound(data, begin, end))


def _is_sound(data: bytes, begin: int, end: int) -> bool:
    checked = zlib.crc32(memoryview(data)[begin + 4 : end - 4])
    return checked == int.from_bytes(data[end - 4 : end], "big")


def _next_sound_chunk(data: bytes, start: int) -> int:
    for match in _NEEDED.finditer(data, start):
        begin = match.start() - 4
        end = _end_of_chunk(data, begin)
        if end <= len(data) and _is_sound(data, begin, end):
            return begin
    return len(data)
