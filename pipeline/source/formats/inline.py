"""Cells that hold an image, or the path or URL of one: as bytes, as text, and as base64 text."""

import base64
import re
from typing import Any

from pipeline.source.formats.folder import has_image_suffix
from pipeline.source.formats.text import decode_text

_DATA_URI = re.compile(r"data:image/[^,]*;base64,", re.IGNORECASE)
# how JPEG, PNG, GIF, WebP, TIFF, and AVIF or HEIC begin in base64
_IMAGE_START = re.compile(r"/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK|AAAA.GZ0eX")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}[=\s]*")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_LONGEST_PATH = 4096


def is_base64_image(text: str) -> bool:
    """Whether a text is an image in base64, not a path: a `data:` URI, or base64 that begins as an image does."""
    return bool(_DATA_URI.match(text) or (_IMAGE_START.match(text) and _BASE64.fullmatch(text)))


def image_and_path(cell: Any) -> tuple[bytes | None, str | None]:
    """The bytes of the image that a cell holds, and the path or URL that it holds; None if it does not."""
    if isinstance(cell, dict):
        data, inner = image_and_path(cell.get("bytes"))
        return data, image_and_path(cell.get("path"))[1] or inner
    if isinstance(cell, bytes):
        return (None, decode_text(cell)) if _is_path(cell) else (cell, None)
    if isinstance(cell, str) and is_base64_image(cell):
        try:
            return base64.b64decode(_DATA_URI.sub("", cell, count=1)), None
        except ValueError:  # cut off; its row says that it holds no image
            return b"", None
    return None, cell or None


def _is_path(data: bytes) -> bool:
    """Whether bytes are a path or URL: some writers of Parquet store all text as bytes."""
    if len(data) > _LONGEST_PATH:
        return False
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return text.isprintable() and (has_image_suffix(text) or bool(_URL.match(text)))
