"""Text from sources: paths, JSON values, and the usual names of columns."""

import json
import os
from pathlib import Path
from typing import Any

# The first match wins if a source has several. The two orders differ and must stay so: a plan records the captions it
# read, and another choice would make every list or file look changed.
CAPTION_COLUMNS_OF_LISTS = ("caption", "title", "text")
CAPTION_COLUMNS_OF_PARQUET = ("caption", "text", "title")


def as_text(path: Path | str) -> str:
    """A path as text that Parquet and JSON can hold. Bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def as_column(value: Any) -> str | None:
    """A JSON value as the text of a column."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()  # JSON can hold lone surrogates
