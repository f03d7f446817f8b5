"""Lists of paths and URLs: CSV and TSV with a header line, or JSON lines. Read once, from front to back."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.errors import InputError
from pipeline.source.entry import ImageEntry, SourceSpec
from pipeline.source.location import is_url, joined, open_stream, path_of, persistently, reason_of, uri_of
from pipeline.source.webdataset import as_column

PATH_COLUMNS = ("image_path", "filepath", "file_path", "path", "file_name", "filename", "file", "url", "uri", "image")
CAPTION_COLUMNS = ("caption", "title", "text")
LIST_SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": None, ".ndjson": None}


def read_list(spec: SourceSpec) -> Iterator[ImageEntry]:
    """The images that a list names, in its order; relative paths are relative to the list's folder.

    Raises:
        InputError: If the list is missing, is not UTF-8, lacks a column, or a line names no image.
    """
    uri = uri_of(spec.location)
    folder = uri.rpartition("/")[0]
    try:
        with persistently(lambda: open_stream(uri), uri) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            rows = enumerate(_rows(text, spec.location), start=1)
            number, row = next(rows, (0, None))
            if row is None:
                raise InputError(f"list {spec.location} is empty; expected a header and one image a line")
            path = _choose(spec.location, row, spec.image_column, PATH_COLUMNS, "--image-column")
            if path is None:
                raise InputError(
                    f"list {spec.location} has no column of paths under a usual name; name it with --image-column, "
                    f"one of {', '.join(row)}"
                )
            caption = _choose(spec.location, row, spec.caption_column, CAPTION_COLUMNS, "--caption-column")
            for name in spec.columns:
                _choose(spec.location, row, name, (), "--columns")
            while row is not None:
                if not row.get(path):
                    raise InputError(f"list {spec.location}, row {number}: no {path!r}; every row names an image")
                yield _entry(spec, folder, row, row[path], row.get(caption) if caption else None)
                number, row = next(rows, (0, None))
    except UnicodeDecodeError as error:
        raise InputError(f"list {spec.location} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"cannot read the list {spec.location}: {reason_of(error)}") from error


def _rows(text: Iterable[str], location: str) -> Iterator[dict[str, Any]]:
    delimiter = LIST_SUFFIXES[os.path.splitext(location)[1].lower()]
    if delimiter:
        yield from csv.DictReader(text, delimiter=delimiter)
        return
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"list {location}, line {number} is not JSON: {reason_of(error)}") from error
        if not isinstance(row, dict):
            raise InputError(f"list {location}, line {number}: expected a JSON object, found {line[:60]!r}")
        yield row


def _entry(spec: SourceSpec, folder: str, row: dict[str, Any], path: str, caption: Any) -> ImageEntry:
    uri = joined(folder, str(path))
    num_bytes = mtime_ns = 0
    if not is_url(uri):  # asking a server for each of millions would take longer than fetching them
        try:
            status = os.stat(path_of(uri))
            num_bytes, mtime_ns = status.st_size, status.st_mtime_ns
        except OSError:
            pass
    key = str(row.get(spec.key_column) or path) if spec.key_column else str(path)
    extra = {name: as_column(row.get(name)) for name in spec.columns} or None
    return ImageEntry(key, uri, num_bytes, mtime_ns, as_column(caption), extra)


def _choose(location: str, row: dict[str, Any], asked: str | None, usual: tuple[str, ...], flag: str) -> str | None:
    if asked and asked not in row:
        raise InputError(f"list {location} has no column {asked!r}; give {flag} one of {', '.join(row)}")
    return asked or next((name for name in usual if name in row), None)
