"""Lists of paths and URLs: CSV and TSV with a header line, or JSON lines. Read once, front to back.

They are UTF-8, or UTF-16 with its mark. A line can end with LF, CRLF or CR. In CSV, quotation marks group a field; in
TSV, a line is a row and is split at every tab.
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from pipeline.errors import InputError
from pipeline.source.access.failures import reason_of
from pipeline.source.access.location import open_stream, refuse_unreachable
from pipeline.source.access.naming import folder_of, is_url, join_uri, path_of, suffix_of, uri_of, without_parameters
from pipeline.source.entry import ImageEntry, Source
from pipeline.source.formats.inline import is_base64_image
from pipeline.source.formats.text import CAPTION_COLUMNS, as_text, caption_of, column_of, encoding_of, key_of
from pipeline.source.limits import known_size, known_time_ns

PATH_COLUMNS = ("image_path", "filepath", "file_path", "path", "file_name", "filename", "file", "url", "uri", "image")
LIST_SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": None, ".ndjson": None}
MAX_FIELD = 2**24
"""Longest line and longest field, in characters. Bounds memory where a quotation mark is never closed."""


def read_list(source: Source) -> Iterator[ImageEntry]:
    """Yield the images that a list names, in its order. Relative paths are relative to the list's folder.

    A row's key is its path as the list spells it, unless there is a key column.

    Raises:
        InputError: If the list is missing, is not text, or lacks a column, or a row names no image.
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
            text = io.TextIOWrapper(stream, encoding=_encoding(stream.peek(2)[:2]), newline="")
            for number, row in enumerate(_rows(text, source.location, LIST_SUFFIXES[suffix]), start=1):
                if number == 1:
                    _refuse_missing_columns(source, row)
                entry = _entry(source, folder, number, row)
                scheme = entry.uri.partition("://")[0]
                if scheme != "file" and scheme not in schemes:  # fail here, not on every worker
                    refuse_unreachable(entry.uri)
                    schemes.add(scheme)
                yield entry
    except UnicodeError as error:
        raise InputError(
            f"list {source.location} is not UTF-8, or UTF-16 with its mark (after row {number}); save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise InputError(
            f"list {source.location} is not CSV: {reason_of(error)} (after row {number}); close every quotation mark, "
            "and double those inside a field"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot read list {source.location}: {reason_of(error)} (after row {number}); check its name and format"
        ) from error
    if not number:
        raise InputError(f"list {source.location} is empty; expected a header and one image per line")


def path_in_list(source: Source, uri: str) -> str:
    """The path of an image that a list names: relative to the list's folder if it is in there, else as it is spelled.

    Of a web address, the part that names a folder and file.
    """
    folder = f"{folder_of(uri_of(source.location))}/"
    if not is_url(uri):
        inside = uri.removeprefix(folder)
        return as_text(path_of(inside) if inside == uri else os.fsdecode(unquote_to_bytes(inside)))
    bare = without_parameters(uri)
    return bare.removeprefix(folder) if bare.startswith(folder) else bare.partition("://")[2].partition("/")[2]


def _encoding(start: bytes) -> str:
    if b"\0" in start:
        raise UnicodeError("UTF-16 without its mark")
    return encoding_of(start)


class _Row(dict[str, Any]):
    """The values of a row, by name. `repeated` has the names that occur more than once."""

    repeated: frozenset[str] = frozenset()

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> "_Row":
        row = cls(pairs)
        if len(row) < len(pairs):
            row.repeated = frozenset(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return row


def _rows(text: io.TextIOBase, location: str, delimiter: str | None) -> Iterator[_Row]:
    lines = _lines(text, location)
    if delimiter == "\t":
        return _table(map(_split, lines), location, delimiter)
    if delimiter:
        csv.field_size_limit(MAX_FIELD)
        return _table(csv.reader(lines, delimiter=delimiter, strict=True), location, delimiter)
    return _objects(lines, location)


def _lines(text: io.TextIOBase, location: str) -> Iterator[str]:
    """Yield the lines with their ends."""
    number = 0
    while line := text.readline(MAX_FIELD):
        number += 1
        if len(line) == MAX_FIELD:
            raise InputError(
                f"list {location}, line {number}: more than {MAX_FIELD:,} characters; check that the file is text, "
                "with one image per line"
            )
        yield line


def _split(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    return [_unquoted(field) for field in line.split("\t")] if line else []


def _unquoted(field: str) -> str:
    """A field without the quotation marks that pandas and R put around it; verbatim if they were not put so."""
    if len(field) < 2 or not (field.startswith('"') and field.endswith('"')):
        return field
    inner = field[1:-1]
    return field if '"' in inner.replace('""', "") else inner.replace('""', '"')


def _table(rows: Iterable[list[str]], location: str, delimiter: str) -> Iterator[_Row]:
    """Yield the rows after the header. Empty lines are passed over."""
    filled = filter(None, rows)
    names = [name.strip() for name in next(filled, [])]
    for number, fields in enumerate(filled, start=1):
        if len(fields) > len(names) or (delimiter == "\t" and len(fields) < len(names)):
            advice = "quote fields that contain the separator"
            if delimiter == "\t":
                advice = "a line must be one row, without tabs or line breaks inside its fields"
            raise InputError(
                f"list {location}, row {number}: expected {len(names)} fields as in the header, found {len(fields)}; "
                f"{advice}"
            )
        yield _Row.of(list(zip(names, fields + [None] * (len(names) - len(fields)), strict=True)))


def _objects(lines: Iterable[str], location: str) -> Iterator[_Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_Row.of)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"list {location}, line {number} is not JSON: {reason_of(error)}; expected one object per line"
            ) from error
        if not isinstance(row, _Row):
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
    column = source.image_column or _present(PATH_COLUMNS, row)
    captions = source.caption_column or _present(CAPTION_COLUMNS, row)
    path = column_of(row.get(column))
    if row.repeated or not path or is_base64_image(path):
        used = {column, captions, source.key_column, *source.columns}
        _refuse_row(f"list {source.location}, row {number}", row.repeated & used, column, path)
    uri = join_uri(folder, path)
    num_bytes = mtime_ns = 0
    if not is_url(uri):  # millions of size requests would take longer than downloading the images
        try:
            status = os.stat(path_of(uri))
            num_bytes, mtime_ns = known_size(status.st_size), known_time_ns(status.st_mtime_ns)
        except (OSError, ValueError):  # decoding gives it a row with the reason
            pass
    key = key_of(row.get(source.key_column)) if source.key_column else None
    caption = caption_of(row.get(captions))
    extra = {name: column_of(row.get(name)) for name in source.columns} or None
    return ImageEntry(key or path, uri, num_bytes, mtime_ns, caption=caption, extra=extra)


def _refuse_row(where: str, repeated: frozenset[str], column: str | None, path: str | None) -> None:
    if repeated:
        raise InputError(f"{where} has several columns named {min(repeated)!r}; rename all but one")
    if not path:
        raise InputError(f"{where}: no {column or 'path'!r}; every row must name an image")
    if is_base64_image(path):
        raise InputError(
            f"{where}: {column!r} holds an image as base64 text, but a list names files; write the images to files, or "
            "the rows to a Parquet file, where base64 is read"
        )


def _present(usual: tuple[str, ...], row: dict[str, Any]) -> str | None:
    # decided per row: JSON objects can have different fields
    return next((name for name in usual if name in row), None)
