"""Parquet files of images: encoded bytes, Hugging Face's `{bytes, path}`, or paths and URLs.

Listing reads only footers. Home of pyarrow's reading side for sources.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.source.access.failures import reason_of
from pipeline.source.access.location import open_stream
from pipeline.source.access.naming import folder_of, join_uri
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats.text import CAPTION_COLUMNS_OF_PARQUET

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
_BUFFER_BYTES = 2**20
_IMAGE_TYPES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
)


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
        raise InputError(f"cannot read {uri} as Parquet: {reason_of(error)}; download it again") from error


def resolve_columns(source: Source, uri: str, schema: pa.Schema) -> Source:
    """The source with its columns resolved against this file. Columns resolved from earlier files must match.

    Raises:
        InputError: If a column is missing, or has another type.
    """
    image = _choose(uri, schema, source.image_column, IMAGE_COLUMNS, "--image-column")
    if image is None:
        raise InputError(
            f"{uri} has no image column with a usual name; pass --image-column with one of {', '.join(schema.names)}"
        )
    _refuse_type(uri, schema.field(image))
    columns = {}
    for name, asked in source.columns.items():
        found = _kind_carried(uri, _field(uri, schema, name, "--columns"))
        if asked and asked != found:
            raise InputError(f"{uri}: column {name!r} is {found}, but {asked} in other files; make the types agree")
        columns[name] = found
    update = {
        "image_column": image,
        "key_column": _choose(uri, schema, source.key_column, (), "--key-column"),
        "caption_column": _choose(uri, schema, source.caption_column, CAPTION_COLUMNS_OF_PARQUET, "--caption-column"),
        "columns": columns,
    }
    return source.model_copy(update=update)


def read_rows(file: SourceFile, source: Source, start: int, stop: int) -> Iterator[ImageEntry]:
    """Yield the images of rows `start` to `stop` of a file.

    Raises:
        InputError: If the file is damaged.
        OSError, SourceUnavailable: If it cannot be read.
    """
    columns = {source.image_column, source.key_column, source.caption_column, *source.columns} - {None}
    folder = folder_of(file.uri)
    try:
        with open_stream(file.uri) as stream:
            for number, row in _rows(stream, sorted(columns), start, stop):
                yield _entry(file, source, folder, number, row)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(
            f"{file.uri} is damaged ({reason_of(error)}); replace it with an intact copy, then run the same command "
            "with --on-change embed"
        ) from error


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
    value = found[column]
    return (value.get("bytes") if isinstance(value, dict) else value) or b""


def _rows(stream: BinaryIO, columns: list[str], start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number, values by column). Holds few rows in memory, however large a row group is."""
    # no pre-buffering: it reads whole row groups, which may be as large as the file
    parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    groups, first = _row_groups(parquet, start, stop)
    if not set(columns) <= set(parquet.schema_arrow.names):
        raise pa.ArrowInvalid(f"it has columns {', '.join(parquet.schema_arrow.names)}, not {', '.join(columns)}")
    for batch in parquet.iter_batches(_ROWS_AT_ONCE, groups, columns, use_threads=False):
        begin, end = max(first, start), min(first + batch.num_rows, stop)
        if begin < end:
            part = batch.slice(begin - first, end - begin)
            rows = zip(*(_values(part[name]) for name in columns), strict=True)
            yield from ((number, dict(zip(columns, row, strict=True))) for number, row in enumerate(rows, begin))
        first += batch.num_rows
        if first >= stop:
            return


def _entry(file: SourceFile, source: Source, folder: str, number: int, row: dict[str, Any]) -> ImageEntry:
    value = row[source.image_column]
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, value)
    caption = row[source.caption_column] if source.caption_column else None
    if isinstance(caption, list):
        caption = caption[0] if caption else None
    if isinstance(data, str) or (data is None and path):
        data, uri = None, join_uri(folder, path)
    else:
        data, uri = data or b"", f"{file.uri}#column={quote(source.image_column, safe='')}&row={number}"
    key = row[source.key_column] if source.key_column else None
    return ImageEntry(
        key=f"{file.key}/{number}" if key is None else f"{source.key_prefix}{key}",
        uri=uri,
        num_bytes=len(data or b""),
        mtime_ns=0,
        caption=None if caption is None else str(caption) or None,
        extra={name: row[name] for name in source.columns} or None,
        data=data,
    )


def _row_groups(parquet: pq.ParquetFile, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that overlap the range, and the number of the first row in them."""
    found, begin, first = [], 0, 0
    for group in range(parquet.metadata.num_row_groups):
        end = begin + parquet.metadata.row_group(group).num_rows
        if begin < stop and start < end:
            first = first if found else begin
            found.append(group)
        begin = end
    return found, first


def _values(column: pa.Array) -> list[Any]:
    """Values as Python objects, but times as integers: datetime has no nanoseconds, and a time zone may be unknown."""
    kind = _flat(column.type)
    if pa.types.is_timestamp(kind) or _is_in_ns(kind):
        return column.cast(kind).cast(pa.int64()).to_pylist()
    try:
        return column.to_pylist()
    except UnicodeDecodeError:  # only the metadata is damaged, not the image
        texts = column.cast(kind).cast(pa.large_binary()).to_pylist()
        return [None if text is None else text.decode("utf-8", "replace") for text in texts]
    except (OverflowError, ValueError):
        if not pa.types.is_temporal(kind):
            raise
        return (
            column.cast(kind).cast(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
        )  # a year out of Python's range


def _is_in_ns(kind: pa.DataType) -> bool:
    return (pa.types.is_time(kind) or pa.types.is_duration(kind)) and kind.unit == "ns"


def _choose(uri: str, schema: pa.Schema, asked: str | None, usual: tuple[str, ...], flag: str) -> str | None:
    if asked:
        return _field(uri, schema, asked, flag).name
    found = next((name for name in usual if name in schema.names), None)
    return found and _field(uri, schema, found, flag).name


def _field(uri: str, schema: pa.Schema, name: str, flag: str) -> pa.Field:
    if name not in schema.names:
        raise InputError(f"{uri} has no column {name!r}; pass {flag} with one of {', '.join(schema.names)}")
    if schema.names.count(name) > 1:
        raise InputError(f"{uri} has {schema.names.count(name)} columns named {name!r}; rename all but one")
    return schema.field(name)


def _flat(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _refuse_type(uri: str, field: pa.Field) -> None:
    kind = _flat(field.type)
    is_flat = any(is_of(kind) for is_of in _IMAGE_TYPES)
    is_both = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (is_flat or is_both):
        raise InputError(
            f"{uri}: column {field.name!r} is {kind}, expected bytes, a struct of bytes and path, or text; pass "
            "another --image-column"
        )


def _kind_carried(uri: str, field: pa.Field) -> str:
    kind = _flat(field.type)
    name = str(pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) else kind)  # time zones become UTC
    try:
        pa.type_for_alias(name)
    except ValueError:
        raise InputError(
            f"{uri}: column {field.name!r} is {name}, which cannot be carried; --columns accepts numbers, text, bytes, "
            "dates and times"
        ) from None
    return name
