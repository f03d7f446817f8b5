"""Read queries that are texts: one per line, or a column of a table."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError, first_line
from pipeline.source.formats.arrow_types import values_of
from pipeline.source.formats.lines import read_lines
from pipeline.source.formats.text import CAPTION_COLUMNS, caption_of

TEXT_COLUMNS = ("query", *CAPTION_COLUMNS)
"""Usual names of columns with queries. The first one that a file has is used."""

SUFFIXES = (".txt", ".tsv", ".jsonl", ".parquet")

_BATCH_ROWS = 8_192


def read_query_texts(path: Path) -> list[str]:
    """The different texts of a file, in its order; see `iterate_query_texts`."""
    return list(dict.fromkeys(iterate_query_texts(path)))


def iterate_query_texts(path: Path) -> Iterator[str]:
    """Yield the texts of a file, in its order.

    Args:
        path: `.txt` with one text per line; `.jsonl` or `.parquet` with one of `TEXT_COLUMNS`; `.tsv` with such a
            header, or a captions file with one `key TAB caption` per line.

    Raises:
        InputError: If the file has no texts, or cannot be used. The message names the row.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"cannot read queries {path}: expected a name that ends in one of {' '.join(SUFFIXES)}")
    read = {".txt": _lines, ".tsv": _rows_of_tsv, ".jsonl": _rows_of_json, ".parquet": _rows_of_parquet}[suffix]
    is_empty = True
    for where, value in read(path):
        text = caption_of(value)
        if text is None:
            raise InputError(f"queries {path}, {where}: it has no text; leave it out")
        yield text
        is_empty = False
    if is_empty:
        raise InputError(f"queries {path} is empty; expected one text per line or row")


def _lines(path: Path) -> Iterator[tuple[str, object]]:
    for number, line in read_lines(path, "queries", "a file with one text per line"):
        yield f"line {number}", line


def _rows_of_tsv(path: Path) -> Iterator[tuple[str, object]]:
    place = None
    for number, line in read_lines(path, "queries", "a file with one text per line"):
        fields = line.split("\t")
        if place is None:
            name = _column(fields)
            place, num_fields = (fields.index(name), len(fields)) if name else (1, 2)
            if name:
                continue
        if len(fields) != num_fields:
            raise InputError(
                f"queries {path}, line {number}: expected {num_fields} fields, found {len(fields)}; begin the file "
                f"with a header that has one of {', '.join(TEXT_COLUMNS)}, or write one `key TAB caption` per line"
            )
        yield f"line {number}", fields[place]


def _rows_of_json(path: Path) -> Iterator[tuple[str, object]]:
    for number, line in read_lines(path, "queries", "a file with one JSON object per line"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"queries {path}, line {number} is not JSON: {first_line(error)}; expected one object per line"
            ) from error
        names = list(row) if isinstance(row, dict) else []
        yield f"line {number}", row if isinstance(row, str) else row[_named(path, f", line {number}", names)]


def _rows_of_parquet(path: Path) -> Iterator[tuple[str, object]]:
    number = 0
    try:
        file = pq.ParquetFile(path)
        name = _named(path, "", file.schema_arrow.names)
        for batch in file.iter_batches(_BATCH_ROWS, columns=[name]):
            for value in values_of(batch.column(0)):
                number += 1
                yield f"row {number}", value
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"cannot read queries {path} (after row {number}): {reason}") from error


def _column(names: list[str]) -> str | None:
    return next((name for name in TEXT_COLUMNS if name in names), None)


def _named(path: Path, where: str, names: list[str]) -> str:
    name = _column(names)
    if name is None:
        raise InputError(
            f"queries {path}{where}: it has none of the columns {', '.join(TEXT_COLUMNS)}, only "
            f"{', '.join(names) or 'none'}; rename the column of texts, or call a column of vectors embedding"
        )
    return name
