"""How large images may be: in pixels before they are decoded, in bytes before they are read."""

DEFAULT_MAX_PIXELS = 200_000_000
"""Images with more pixels are refused before they are decoded."""

MAX_FILE_BYTES = 2**30
"""Larger files, and members of tars, are refused unread: a decoder holds the file in memory."""
