"""Text of sources: every caption, key and carried column is read here, whatever the format of its source."""

import codecs
import json
import math
import os
from pathlib import Path
from typing import Any

TEXT_RULES = 2
"""Which rules read the captions and columns of a plan. Texts read by other rules cannot be compared with today's."""

CAPTION_COLUMNS = ("caption", "text", "title")
"""Usual names of caption columns. The first one that a source has is used."""

_MARK = "\ufeff"


def as_text(path: Path | str) -> str:
    """A path as text that Parquet and JSON can hold. Bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def encoding_of(start: bytes) -> str:
    """The encoding of a text that starts with these bytes: UTF-16 if it has the mark of it, else UTF-8."""
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def decode_text(raw: bytes) -> str:
    """Bytes as text, without a byte-order mark. What is invalid in their encoding is replaced."""
    return raw.decode(encoding_of(raw), errors="replace")


def column_of(value: Any) -> str | None:
    """A value as the text of a column: None for null and NaN, JSON for lists and objects. Other text stays verbatim."""
    try:
        value = _plain(value)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    except RecursionError:
        return None  # nested too deeply to be written; the image is fine
    if value is None:
        return None
    return text if text.isascii() else text.encode("utf-8", "replace").decode()  # JSON can hold lone surrogates


def caption_of(value: Any) -> str | None:
    """A value as a caption, without blanks around it: the first of a list that is one, None if there is none."""
    if isinstance(value, list):
        return next(filter(None, ((column_of(item) or "").strip() for item in value)), None)
    return (column_of(value) or "").strip() or None


def key_of(value: Any) -> str | None:
    """A value as a key, verbatim. None if it is null or empty."""
    return column_of(value) or None


def _plain(value: Any) -> Any:
    """A value with only what JSON can hold."""
    if isinstance(value, str):
        return value.removeprefix(_MARK)
    if isinstance(value, bytes):
        return decode_text(value)
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or isinstance(value, int | float):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
