"""GIF: a screen, then blocks: images and extensions, each with data in sub-blocks of up to 255 bytes."""

SIGNATURE = b"GIF8"
_SCREEN_END = 13
_IMAGE, _EXTENSION, _END = b",", b"!", b";"
_CONTROL = 0xF9
_MAX_CODE_SIZE = 11


def without_damaged_extensions(data: bytes) -> bytes | None:
    """The GIF with only its first image, if the lengths in an extension before it are wrong; else as it is.

    A decoder that goes on after wrong lengths may take any comma for an image.
    """
    if len(data) < _SCREEN_END:
        return None
    start = position = _SCREEN_END + _palette_size(data[10])
    control = b""
    while data.startswith(_EXTENSION, position):
        end = _end_of_sub_blocks(data, position + 2)
        if end is None or not data.startswith((_IMAGE, _EXTENSION), end) or _find_image(data, position + 2, end):
            break
        if data[position + 1] == _CONTROL:
            control = data[position:end]
        position = end
    if data.startswith(_IMAGE, position):
        return data
    image = _find_image(data, position + 1, len(data))
    return data[:start] + control + data[slice(*image)] + _END if image else None


def _find_image(data: bytes, start: int, stop: int) -> tuple[int, int] | None:
    """Begin and end of the first image that begins in a part of the file."""
    position = data.find(_IMAGE, start, stop)
    while position >= 0:
        end = _end_of_image(data, position)
        if end is not None:
            return position, end
        position = data.find(_IMAGE, position + 1, stop)
    return None


def _end_of_image(data: bytes, begin: int) -> int | None:
    """Where the image ends that may begin here, None if none does."""
    if begin + 11 > len(data):
        return None
    left, top, width, height = (_short(data, begin + at) for at in (1, 3, 5, 7))
    if not (0 < width <= _short(data, 6) - left and 0 < height <= _short(data, 8) - top):
        return None
    codes = begin + 10 + _palette_size(data[begin + 9])
    if not 1 <= (data[codes] if codes < len(data) else 0) <= _MAX_CODE_SIZE:
        return None
    end = _end_of_sub_blocks(data, codes + 1)
    is_sound = end is not None and data[end : end + 1] in (_IMAGE, _EXTENSION, _END, b"")
    return end if is_sound else None


def _end_of_sub_blocks(data: bytes, position: int) -> int | None:
    while position < len(data):
        if data[position] == 0:
            return position + 1
        position += 1 + data[position]
    return None


def _palette_size(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _short(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")
