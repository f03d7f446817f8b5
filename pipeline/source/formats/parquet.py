"""Parquet files of images: encoded bytes, Hugging Face's `{bytes, path}`, paths and URLs, or base64 text.

Listing reads only footers, and the column of keys if there is one. Home of pyarrow's reading side for sources.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, BinaryIO
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.source.access.failures import reason_of
from pipeline.source.access.location import open_stream
from pipeline.source.access.naming import folder_of, join_uri
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats.arrow_types import (
    fault_of_captions,
    fault_of_key,
    kind_carried,
    refuse_image_type,
    values_of,
)
from pipeline.source.formats.inline import image_and_path
from pipeline.source.formats.text import CAPTION_COLUMNS, caption_of, column_of, key_of
from pipeline.source.secrets import key_without_credentials

IMAGE_COLUMNS = (
    "image",
    "jpg",
    "png",
    "image_bytes",
    "bytes",
    "content",
    "image_path",
    "filepath",
    "path",
    "url",
    "uri",
)
_ROWS_AT_ONCE = 64
_KEYS_AT_ONCE = 10_000
_BUFFER_BYTES = 2**20


def read_footer(uri: str) -> tuple[pa.Schema, int]:
    """Schema and number of rows of a file.

    Raises:
        InputError: If it is not a Parquet file, or cannot be read.
    """
    try:
        with open_stream(uri) as stream:
            footer = pq.ParquetFile(stream)
            return footer.schema_arrow, footer.metadata.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _not_parquet(uri, error) from error


def _not_parquet(uri: str, error: Exception) -> InputError:
    return InputError(f"cannot read {uri} as Parquet: {reason_of(error)}; download it again")


def resolve_columns(source: Source, uri: str, schema: pa.Schema) -> Source:
    """The source with its columns resolved against this file. Columns resolved from earlier files must match.

    Raises:
        InputError: If a column is missing, or has another type.
    """
    image = choose_column(uri, schema, source.image_column, IMAGE_COLUMNS, "--image-column")
    if image is None:
        raise InputError(
            f"{uri} has no image column with a usual name; pass --image-column with one of {', '.join(schema.names)}"
        )
    refuse_image_type(uri, schema.field(image))
    columns = {}
    for name, asked in source.columns.items():
        found = kind_carried(field_named(uri, schema, name, "--columns"))
        if asked and asked != found:
            raise InputError(f"{uri}: column {name!r} is {found}, but {asked} in other files; make the types agree")
        columns[name] = found
    update = {
        "image_column": image,
        "key_column": choose_column(uri, schema, source.key_column, (), "--key-column"),
        "caption_column": choose_column(uri, schema, source.caption_column, CAPTION_COLUMNS, "--caption-column"),
        "columns": columns,
    }
    return source.model_copy(update=update)


def text_fault(source: Source, schema: pa.Schema) -> str | None:
    """What is wrong with the types of a file's keys or captions, or None. Files that are in a store may stay there."""
    key, captions = source.key_column, source.caption_column
    fault = fault_of_key(schema.field(key)) if key else None
    return fault or (fault_of_captions(schema.field(captions)) if captions else None)


def read_rows(file: SourceFile, source: Source, start: int, stop: int) -> Iterator[ImageEntry]:
    """Yield the images of rows `start` to `stop` of a file.

    Raises:
        InputError: If the file is damaged.
        OSError, SourceUnavailable: If it cannot be read.
    """
    columns = {source.image_column, source.key_column, source.caption_column, *source.columns} - {None}
    folder = folder_of(file.uri)
    with _damage_named(file), open_stream(file.uri) as stream:
        for number, row in _rows(stream, sorted(columns), start, stop):
            yield _entry(file, source, folder, number, row)


def read_keys(file: SourceFile, source: Source, start: int, stop: int) -> Iterator[tuple[int, str]]:
    """Yield the number and key of rows `start` to `stop` of a file. Reads only its key column.

    Raises:
        InputError: If the file is damaged or cannot be read.
        SourceUnavailable: If its server does not respond.
    """
    if source.key_column is None:
        yield from ((number, _key(file, source, number, {})) for number in range(start, stop))
        return
    try:
        with _damage_named(file), open_stream(file.uri) as stream:
            for number, row in _rows(stream, [source.key_column], start, stop, at_once=_KEYS_AT_ONCE):
                key = _key(file, source, number, row)
                yield number, key_without_credentials(key) if "://" in key else key
    except OSError as error:
        raise InputError(
            f"cannot read the keys of {file.uri}: {reason_of(error)}; check its permissions, or replace it with an "
            "intact copy"
        ) from error


@contextmanager
def _damage_named(file: SourceFile) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(
            f"{file.uri} is damaged ({reason_of(error)}); replace it with an intact copy, then run the same command "
            "with --on-change embed"
        ) from error


def cell_uri(uri: str, column: str, row: int) -> str:
    """The URI of the image in a cell of a file."""
    return f"{uri}#column={quote(column, safe='')}&row={row}"


def read_row_groups(uri: str) -> list[range]:
    """The rows of each row group of a file that has any.

    Raises:
        InputError: If it is not a Parquet file, or cannot be read.
        SourceUnavailable: If its server does not respond.
    """
    try:
        with open_stream(uri) as stream:
            metadata = pq.ParquetFile(stream).metadata
            sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _not_parquet(uri, error) from error
    ends = list(accumulate(sizes))
    return [range(end - size, end) for size, end in zip(sizes, ends, strict=True) if size]


def read_cell(uri: str, column: str, row: int) -> bytes:
    """Read the bytes of one image.

    Raises:
        OSError, SourceUnavailable: If it does not exist or cannot be read.
    """
    try:
        with open_stream(uri) as stream:
            [(_, found)] = _rows(stream, [column], row, row + 1)
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise OSError(f"cannot read row {row}: {reason_of(error)}") from error
    return image_and_path(found[column])[0] or b""


def _rows(
    stream: BinaryIO, columns: list[str], start: int, stop: int, at_once: int = _ROWS_AT_ONCE
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number, values by column). Holds few rows in memory, however large a row group is."""
    # no pre-buffering: it reads whole row groups, which may be as large as the file
    parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    groups, first = row_groups_between(parquet, start, stop)
    if not set(columns) <= set(parquet.schema_arrow.names):
        raise pa.ArrowInvalid(f"it has columns {', '.join(parquet.schema_arrow.names)}, not {', '.join(columns)}")
    for batch in parquet.iter_batches(at_once, groups, columns, use_threads=False):
        begin, end = max(first, start), min(first + batch.num_rows, stop)
        if begin < end:
            part = batch.slice(begin - first, end - begin)
            rows = zip(*(values_of(part[name]) for name in columns), strict=True)
            yield from ((number, dict(zip(columns, row, strict=True))) for number, row in enumerate(rows, begin))
        first += batch.num_rows
        if first >= stop:
            return


def _entry(file: SourceFile, source: Source, folder: str, number: int, row: dict[str, Any]) -> ImageEntry:
    data, path = image_and_path(row[source.image_column])
    if data is None and path:
        uri = join_uri(folder, path)
    else:
        data, uri = data or b"", cell_uri(file.uri, source.image_column, number)
    return ImageEntry(
        key=_key(file, source, number, row),
        uri=uri,
        num_bytes=len(data or b""),
        mtime_ns=0,
        caption=caption_of(row[source.caption_column]) if source.caption_column else None,
        extra={name: as_carried(row[name], kind) for name, kind in source.columns.items()} or None,
        data=data,
    )


def _key(file: SourceFile, source: Source, number: int, row: dict[str, Any]) -> str:
    """The row's own key if it has one, else the file and the row's number."""
    key = key_of(row[source.key_column]) if source.key_column else None
    return f"{file.key}/{number}" if key is None else f"{source.key_prefix}{key}"


def as_carried(value: Any, kind: str) -> Any:
    """A value as its column carries it."""
    return value if kind != "string" or isinstance(value, str) else column_of(value)


def row_groups_between(parquet: pq.ParquetFile, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that overlap the range, and the number of the first row in them."""
    found, begin, first = [], 0, 0
    for group in range(parquet.metadata.num_row_groups):
        end = begin + parquet.metadata.row_group(group).num_rows
        if begin < stop and start < end:
            first = first if found else begin
            found.append(group)
        begin = end
    return found, first


def choose_column(uri: str, schema: pa.Schema, asked: str | None, usual: tuple[str, ...], flag: str) -> str | None:
    """Name of the column that was asked for, or of the first usual one that there is.

    Raises:
        InputError: If the column that was asked for is missing, or the name is not unique.
    """
    if asked:
        return field_named(uri, schema, asked, flag).name
    found = next((name for name in usual if name in schema.names), None)
    return found and field_named(uri, schema, found, flag).name


def field_named(uri: str, schema: pa.Schema, name: str, flag: str) -> pa.Field:
    """The column with a name.

    Raises:
        InputError: If there is none, or more than one. The message lists the columns.
    """
    if name not in schema.names:
        raise InputError(f"{uri} has no column {name!r}; pass {flag} with one of {', '.join(schema.names)}")
    if schema.names.count(name) > 1:
        raise InputError(f"{uri} has {schema.names.count(name)} columns named {name!r}; rename all but one")
    return schema.field(name)
