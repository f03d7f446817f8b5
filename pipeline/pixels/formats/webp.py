"""WebP: a RIFF file, with chunks of name, length and data."""

from collections.abc import Iterator

SIGNATURE = b"RIFF"
_HEAD = 12  # RIFF, length, WEBP
_PIXELS = (b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_METADATA = (b"ICCP", b"EXIF", b"XMP ")
_ANIMATION, _EXIF, _ALPHA = 0x02, 0x08, 0x10


def without_metadata(data: bytes) -> bytes | None:
    """The WebP with only its frames and its rotation."""
    if data[_HEAD : _HEAD + 4] != b"VP8X":
        return None  # only the extended format has metadata
    chunks = list(_chunks(data))
    names = {name for name, _ in chunks}
    if not names & {b"VP8 ", b"VP8L", b"ANMF"}:
        return None
    header = bytearray(data[_HEAD + 8 : _HEAD + 18])
    header[0] &= _ALPHA
    header[0] |= (_ANIMATION if b"ANIM" in names else 0) | (_EXIF if b"EXIF" in names else 0)
    body = b"".join(_chunk(name, content) for name, content in [(b"VP8X", bytes(header)), *chunks])
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and data of the chunks to keep, in order."""
    position = _HEAD + 18
    while position + 8 <= len(data):
        name = data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        end, following = position + 8 + length, position + 8 + length + length % 2
        if name in _PIXELS:
            if end > len(data):
                return  # the frame is not whole
            yield name, data[position + 8 : end]
            position = following
            continue
        next_pixels = _next_pixels(data, position + 4)
        is_sound = end <= next_pixels and data[following : following + 4] in (*_PIXELS, *_METADATA, b"")
        if name == b"EXIF" and is_sound:
            yield name, data[position + 8 : end]
        position = following if is_sound else next_pixels


def _next_pixels(data: bytes, start: int) -> int:
    """Where the next chunk of a frame begins; the end of the file if there is none."""
    found = [at for at in (data.find(name, start) for name in _PIXELS) if at >= 0]
    sound = [at for at in found if at + 8 + int.from_bytes(data[at + 4 : at + 8], "little") <= len(data)]
    return min(sound, default=len(data))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
