"""Limits on the size of images: pixels, checked before decoding, and bytes, checked before reading."""

DEFAULT_MAX_PIXELS = 200_000_000
"""Images with more pixels are refused before they are decoded."""

MAX_FILE_BYTES = 2**30
"""Larger files and tar members are refused unread, because a decoder holds the whole file in memory."""
