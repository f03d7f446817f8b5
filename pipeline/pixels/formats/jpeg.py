"""JPEG: segments that begin with a marker; the last ones, scans, are followed by the entropy-coded pixels."""

import re
from collections.abc import Iterator
from itertools import takewhile

from pipeline.pixels.formats.spans import Span, joined

START = b"\xff\xd8"
END = b"\xff\xd9"
END_MARKER, SCAN = 0xD9, 0xDA
_START_OF_SCAN = b"\xff\xda"
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD})
_QUANTIZATION, _ADOBE, _JFIF, _APP1 = 0xDB, 0xEE, 0xE0, 0xE1
_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xda-\xef\xfe]")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_MAX_SEARCHED = 1000


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, begin and end of each segment, up to the end mark or to the first segment that is damaged.

    The pixels that follow a scan are not part of its segment.
    """
    position: int | None = len(START)
    while position is not None:
        if data.startswith(END, position):
            yield END_MARKER, position, position + len(END)
        segment = _segment_at(data, position)
        if segment is None:
            return
        marker, end = segment
        yield marker, position, end
        position = end
        if marker == SCAN:
            following = _AFTER_SCAN.search(data, end)
            position = following.start() if following else None


def has_whole_header(data: bytes) -> bool:
    """Whether all segments up to the first scan are sound, and none that decides the pixels is missing."""
    header = list(takewhile(lambda segment: segment[0] != SCAN, segments(data)))
    end = header[-1][2] if header else len(data)
    return data.startswith(_START_OF_SCAN, end) and _has_tables({marker for marker, _, _ in header})


def without_metadata(data: bytes) -> bytes | None:
    """The JPEG with only its tables and scans, what decides its colours (JFIF, Adobe), and its rotation."""
    found = _needed(data, len(START))
    if found is None or not _has_tables({data[begin + 1] for begin, _ in found}):
        # they are inside a segment whose length is wrong
        start = _resume(data, len(START) + 1)
        found = _needed(data, start) if start else None
    return joined(data, [(0, len(START)), *found]) if found else None


def _has_tables(markers: set[int]) -> bool:
    return bool(markers & FRAMES) and _QUANTIZATION in markers


def _needed(data: bytes, position: int) -> list[Span] | None:
    """The parts to keep, from a segment to the end; None if there is no scan."""
    spans, begin = [], position
    while True:
        segment = _segment_at(data, position)
        if segment is None:
            # the length of the last segment is wrong, or there is rubbish after it
            found = _resume(data, begin + 1)
            if found is None:
                return None
            if spans and spans[-1][0] == begin:
                spans.pop()
            position = begin = found
            continue
        marker, end = segment
        if marker == SCAN:
            return [*spans, (position, len(data))]
        if _is_kept(data, marker, position, end):
            spans.append((position, end))
        position, begin = end, position


def _is_kept(data: bytes, marker: int, begin: int, end: int) -> bool:
    content = data[begin + 4 : end]
    if marker == _JFIF:
        return content.startswith(b"JFIF\0") and len(content) >= 14
    if marker == _ADOBE:
        return content.startswith(b"Adobe") and len(content) >= 12
    if marker == _APP1:
        return content.startswith((b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"))
    if marker in FRAMES:
        return len(content) >= 6 and len(content) == 6 + 3 * content[5]  # else a damaged marker of something else
    return marker in _TABLES


def _segment_at(data: bytes, position: int) -> tuple[int, int] | None:
    """Marker and end of the segment that begins here, None if there is none."""
    if position + 4 > len(data) or not _SEGMENT.match(data, position):
        return None
    end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return (data[position + 1], end) if position + 4 <= end <= len(data) else None


def _resume(data: bytes, start: int) -> int | None:
    """Where the header goes on: at the first segment of a chain that leads to the scan of the largest image.

    EXIF data may hold a small preview, a JPEG of its own.
    """
    best, best_area = None, 0
    for number, match in enumerate(_SEGMENT.finditer(data, start)):
        if number == _MAX_SEARCHED:
            break
        area = _area_of_chain(data, match.start())
        if area > best_area:
            best, best_area = match.start(), area
    return best


def _area_of_chain(data: bytes, position: int) -> int:
    """Number of pixels in the frame that a chain of segments describes before its scan, 0 if there is none."""
    area = 0
    while (segment := _segment_at(data, position)) is not None:
        marker, end = segment
        if marker == SCAN:
            return area
        if marker in FRAMES:
            height, width = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7))
            area = height * width
        position = end
    return 0
