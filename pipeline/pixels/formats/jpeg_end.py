"""JPEGs without end mark: whether all their pixels are there.

libjpeg fills pixels that are missing with grey and says nothing. But if every pixel is in the file, the decoder has
read the last one before the file ends, so it does not matter what follows. That is what `completions` are for.
"""

import random
from collections.abc import Iterator

from pipeline.pixels.formats.jpeg import END, FRAMES, SCAN, segments

_DCT_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_NUM_COEFFICIENTS = 64
_FIRST_BYTES = (0x55, 0xAA, 0x3C, 0xD2)  # they differ in their first bit, and in the next


def lacks_end(data: bytes) -> bool:
    """Whether nothing but pixels follows the last scan of a JPEG. False if its header is damaged."""
    if data.endswith(END):
        return False
    markers = [marker for marker, _, _ in segments(data)]
    return markers[-1:] == [SCAN]


def completions(data: bytes) -> Iterator[bytes]:
    """Yield the JPEG with an end mark, each time after other data. If all decode alike, every pixel was there.

    Yields nothing if the scans do not give every coefficient to its last bit (as in a progressive JPEG without its
    last scans).
    """
    if not _has_all_scans(data):
        return
    # a scan ends in zeros only by chance; more often they are the rest of a download that was not finished
    body = data.rstrip(b"\0\xff")
    body += b"\xff\0" if data.startswith(b"\xff\0", len(body)) else b""  # FF as a value, not as a marker
    yield body + END
    chance = random.Random(0)
    for number, first in enumerate(_FIRST_BYTES):
        yield body + bytes([first]) + _more_of_a_scan(chance, 2 * number) + END


def _more_of_a_scan(chance: random.Random, restart: int) -> bytes:
    """Bytes that continue a scan, first without restart marks, then with them, beginning at the given number."""
    # a decoder passes over restart marks that are one or two ahead of the one that it waits for
    parts = [bytes(chance.randrange(0xFF) for _ in range(64)) for _ in range(17)]
    marks = [bytes([0xFF, 0xD0 + (restart + number) % 8]) for number in range(16)]
    return parts[0] + b"".join(mark + part for mark, part in zip(marks, parts[1:], strict=True))


def _has_all_scans(data: bytes) -> bool:
    lowest_bits: dict[int, list[int | None]] = {}
    for marker, begin, end in segments(data):
        content = data[begin + 4 : end]
        if marker in FRAMES:
            if lowest_bits or marker not in _DCT_FRAMES:
                return False
            lowest_bits = {component: [None] * _NUM_COEFFICIENTS for component in content[6::3]}
        elif marker == SCAN:
            _count_scan(content, lowest_bits)
    return bool(lowest_bits) and all(bit == 0 for bits in lowest_bits.values() for bit in bits)


def _count_scan(header: bytes, lowest_bits: dict[int, list[int | None]]) -> None:
    """Note down to which bit a scan gives its coefficients. A damaged header is ignored."""
    num = header[0] if header else 0
    if len(header) >= 4 + 2 * num:
        first, last, bits = header[1 + 2 * num : 4 + 2 * num]
        for component in header[1 : 1 + 2 * num : 2]:
            for number in range(first, min(last + 1, _NUM_COEFFICIENTS)):
                lowest_bits.get(component, [None] * _NUM_COEFFICIENTS)[number] = bits & 15
