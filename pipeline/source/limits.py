"""Limits on what comes from outside: pixels, checked before decoding; bytes, checked before reading; dates and sizes.

A date or size that does not fit its column is taken as unknown, which is 0, and never as the nearest one that fits:
a file server, a tar or a web server can report anything.
"""

DEFAULT_MAX_PIXELS = 200_000_000
"""Images with more pixels are refused before they are decoded."""

MAX_FILE_BYTES = 2**30
"""Larger files and tar members are refused unread, because a decoder holds the whole file in memory."""

_PAST_INT64 = 2**63


def known_time_ns(time_ns: float | None) -> int:
    """A time in ns since 1970, or 0 if it is none that an int64 can hold: years 1678 to 2262."""
    # comparisons also refuse NaN and infinity
    return int(time_ns) if time_ns is not None and -_PAST_INT64 <= time_ns < _PAST_INT64 else 0


def known_size(num_bytes: float | None) -> int:
    """A size in bytes, or 0 if it is none that a file can have."""
    return int(num_bytes) if num_bytes is not None and 0 <= num_bytes < _PAST_INT64 else 0
