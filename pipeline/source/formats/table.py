"""Lists of paths and URLs: CSV and TSV with a header line, or JSON lines. Read once, front to back."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.errors import InputError
from pipeline.source.access.failures import reason_of
from pipeline.source.access.location import open_stream, refuse_unreachable
from pipeline.source.access.naming import folder_of, is_url, join_uri, path_of, suffix_of, uri_of
from pipeline.source.entry import ImageEntry, Source
from pipeline.source.formats.text import CAPTION_COLUMNS_OF_LISTS, as_column
from pipeline.source.limits import known_size, known_time_ns

PATH_COLUMNS = ("image_path", "filepath", "file_path", "path", "file_name", "filename", "file", "url", "uri", "image")
LIST_SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": None, ".ndjson": None}

_SURPLUS = "(surplus)"


def read_list(source: Source) -> Iterator[ImageEntry]:
    """Yield the images that a list names, in its order. Relative paths are relative to the list's folder.

    Raises:
        InputError: If the list is missing, is not UTF-8 or lacks a column, or a row names no image.
    """
    suffix = suffix_of(source.location)
    if suffix not in LIST_SUFFIXES:
        raise InputError(
            f"cannot read list {source.location}: expected a name that ends in one of {' '.join(LIST_SUFFIXES)}; "
            "rename it to match its format"
        )
    uri = uri_of(source.location)
    folder = folder_of(uri)
    schemes: set[str] = set()
    number = 0
    try:
        with open_stream(uri) as stream:
            rows = _rows(
                io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), source.location, LIST_SUFFIXES[suffix]
            )
            for number, row in enumerate(rows, start=1):
                if number == 1:
                    _refuse_missing_columns(source, row)
                entry = _entry(source, folder, number, row)
                scheme = entry.uri.partition("://")[0]
                if scheme != "file" and scheme not in schemes:  # fail here, not on every worker
                    refuse_unreachable(entry.uri)
                    schemes.add(scheme)
                yield entry
    except UnicodeDecodeError as error:
        raise InputError(f"list {source.location} is not UTF-8 (after row {number}); save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise InputError(
            f"cannot read list {source.location}: {reason_of(error)} (after row {number}); check its name and format"
        ) from error
    if not number:
        raise InputError(f"list {source.location} is empty; expected a header and one image per line")


def _rows(text: Iterable[str], location: str, delimiter: str | None) -> Iterator[dict[str, Any]]:
    if delimiter:
        yield from csv.DictReader(text, delimiter=delimiter, restkey=_SURPLUS, strict=True)
        return
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"list {location}, line {number} is not JSON: {reason_of(error)}; expected one object per line"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"list {location}, line {number}: expected a JSON object, found {line[:60]!r}")
        yield row


def _refuse_missing_columns(source: Source, row: dict[str, Any]) -> None:
    asked = {
        "--image-column": [source.image_column],
        "--key-column": [source.key_column],
        "--caption-column": [source.caption_column],
        "--columns": list(source.columns),
    }
    for flag, names in asked.items():
        for name in names:
            if name and name not in row:
                raise InputError(
                    f"list {source.location} has no column {name!r}; pass {flag} with one of {', '.join(row)}"
                )
    if not source.image_column and not any(name in row for name in PATH_COLUMNS):
        raise InputError(
            f"list {source.location} has no path column with a usual name; pass --image-column with one of "
            f"{', '.join(row)}"
        )


def _entry(source: Source, folder: str, number: int, row: dict[str, Any]) -> ImageEntry:
    if _SURPLUS in row:
        raise InputError(
            f"list {source.location}, row {number}: more fields than the header has; quote fields that contain the "
            "separator"
        )
    column = source.image_column or _present(PATH_COLUMNS, row)
    path = as_column(row.get(column))
    if not path:
        raise InputError(f"list {source.location}, row {number}: no {column or 'path'!r}; every row must name an image")
    uri = join_uri(folder, path)
    num_bytes = mtime_ns = 0
    if not is_url(uri):  # millions of size requests would take longer than downloading the images
        try:
            status = os.stat(path_of(uri))
            num_bytes, mtime_ns = known_size(status.st_size), known_time_ns(status.st_mtime_ns)
        except (OSError, ValueError):  # decoding gives it a row with the reason
            pass
    key = as_column(row.get(source.key_column)) if source.key_column else None
    caption = as_column(row.get(source.caption_column or _present(CAPTION_COLUMNS_OF_LISTS, row)))
    extra = {name: as_column(row.get(name)) for name in source.columns} or None
    return ImageEntry(key or path, uri, num_bytes, mtime_ns, caption=caption or None, extra=extra)


def _present(usual: tuple[str, ...], row: dict[str, Any]) -> str | None:
    # decided per row: JSON objects can have different fields
    return next((name for name in usual if name in row), None)
