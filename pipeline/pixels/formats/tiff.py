"""TIFF: a header that points to a directory of tags; some tags point to data elsewhere in the file."""

SIGNATURES = (b"II", b"MM")
_PIXEL_TAGS = frozenset(
    # size, bits, compression, colour, fill order, strips, planes, CCITT options, predictor, palette, tiles
    {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
    # inks, alpha, sample format and its range, JPEG tables, old JPEG, YCbCr
    | {332, 338, 339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)
_ORIENTATION, _SHORT = 274, 3


def without_metadata(data: bytes) -> bytes | None:
    """The TIFF with only the tags of its first image that decide its pixels and rotation. Data stays where it is."""
    order = "little" if data.startswith(b"II") else "big"
    is_big = int.from_bytes(data[2:4], order) == 43
    pointer_at, pointer_size, count_size, entry_size = (8, 8, 8, 20) if is_big else (4, 4, 2, 12)

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    directory = number(pointer_at, pointer_size)
    first = directory + count_size
    count = number(directory, count_size)
    if first + count * entry_size > len(data):
        return None
    entries = [data[at : at + entry_size] for at in range(first, first + count * entry_size, entry_size)]
    table = b"".join(entry for entry in entries if _is_kept(entry, order, pointer_size))
    changed = bytearray(data)
    changed[directory:first] = (len(table) // entry_size).to_bytes(count_size, order)
    changed[first : first + len(table) + pointer_size] = table + bytes(pointer_size)  # no next directory
    return bytes(changed)


def _is_kept(entry: bytes, order: str, count_size: int) -> bool:
    tag, kind, count = (int.from_bytes(entry[a:b], order) for a, b in ((0, 2), (2, 4), (4, 4 + count_size)))
    return tag in _PIXEL_TAGS or (tag, kind, count) == (_ORIENTATION, _SHORT, 1)
