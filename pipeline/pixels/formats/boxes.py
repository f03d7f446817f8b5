"""HEIF, AVIF and JPEG 2000: files of boxes, each with length, name and content."""

import re

from pipeline.pixels.formats.spans import joined

JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_ITEM_KINDS = re.compile(rb"infe(?:\x02...(?:..)|\x03...(?:....))..(Exif|mime|uri )", re.DOTALL)
_UNUSED = b"skip"
_HEADERS_2000 = (b"jP  ", b"ftyp", b"jp2h")
_CODESTREAM = b"jp2c\xff\x4f\xff\x51"
_RESOLUTION = b"res "


def without_items(data: bytes) -> bytes | None:
    """The HEIF or AVIF with its items of EXIF, XMP and other text marked as unused. Rotation is a property here."""
    changed = bytearray(data)
    start = data.find(b"meta")
    length = int.from_bytes(data[start - 4 : start], "big") if start >= 4 else 0
    for match in _ITEM_KINDS.finditer(data, max(start, 0), max(start, 0) + length):
        changed[match.start(1) : match.end(1)] = _UNUSED
    return bytes(changed)


def without_metadata(data: bytes) -> bytes | None:
    """The JPEG 2000 with only its header and its codestream, and without its printed size."""
    parts, position = [], 0
    while position < len(data):
        name, content, end = _box_at(data, position)
        if name not in _HEADERS_2000:
            # go straight to the pixels, past boxes whose length may be wrong
            found = data.find(_CODESTREAM, position)
            return None if found < 4 else b"".join([*parts, joined(data, [(found - 4, len(data))])])
        parts.append(_without_resolution(data, position, content, end) if name == b"jp2h" else data[position:end])
        position = end
    return None


def _box_at(data: bytes, begin: int) -> tuple[bytes, int, int]:
    """Name, begin of content, and end of the box that begins here. An end in the file is not guaranteed."""
    length = int.from_bytes(data[begin : begin + 4], "big")
    head = 16 if length == 1 else 8
    if length == 1:
        length = int.from_bytes(data[begin + 8 : begin + 16], "big")
    end = begin + length if length >= head else len(data)
    return data[begin + 4 : begin + 8], begin + head, end


def _without_resolution(data: bytes, begin: int, content: int, end: int) -> bytes:
    kept, position = [], content
    while position < min(end, len(data)):
        name, _, following = _box_at(data, position)
        if name != _RESOLUTION:
            kept.append(data[position:following])
        position = following
    body = b"".join(kept)
    return (len(body) + 8).to_bytes(4, "big") + data[begin + 4 : begin + 8] + body
