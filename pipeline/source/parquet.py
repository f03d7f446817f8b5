"""Parquet files of images: encoded bytes, Hugging Face's `{bytes, path}`, or paths and URLs. Footers only, to list.

Home of pyarrow's reading side for sources.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.source.entry import ImageEntry, SourceFile, SourceSpec
from pipeline.source.location import joined, open_stream, persistently, reason_of

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
CAPTION_COLUMNS = ("caption", "text", "title")
_ROWS_AT_ONCE = 64


def with_footer(file: SourceFile, spec: SourceSpec) -> tuple[SourceFile, SourceSpec]:
    """The file with its number of rows, and the spec with the columns settled.

    Raises:
        InputError: If it is no Parquet file, or lacks a column.
    """
    try:
        with persistently(lambda: open_stream(file.uri), file.uri) as stream:
            footer = pq.ParquetFile(stream)
            schema, num_rows = footer.schema_arrow, footer.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read {file.uri} as Parquet: {reason_of(error)}; fetch it again") from error
    image = _choose(file, schema, spec.image_column, IMAGE_COLUMNS, "--image-column")
    if image is None:
        raise InputError(
            f"{file.uri} has no column of images under a usual name; name it with --image-column, one of "
            f"{', '.join(schema.names)}"
        )
    _refuse_type(file, schema.field(image))
    columns = {}
    for name, asked in spec.columns.items():
        found = _arrow_type(file, _field(file, schema, name, "--columns"))
        if asked and asked != found:
            raise InputError(f"{file.uri}: column {name!r} is {found}, in other files it is {asked}; make them agree")
        columns[name] = found
    settled = {
        "image_column": image,
        "key_column": _choose(file, schema, spec.key_column, (), "--key-column"),
        "caption_column": _choose(file, schema, spec.caption_column, CAPTION_COLUMNS, "--caption-column"),
        "columns": columns,
    }
    return file.model_copy(update={"num_rows": num_rows}), spec.model_copy(update=settled)


def read_rows(file: SourceFile, spec: SourceSpec, start: int, stop: int) -> Iterator[ImageEntry]:
    """The images of rows `start` to `stop` of a file.

    Raises:
        InputError: If the file is damaged.
        OSError, SourceUnavailable: If it cannot be read.
    """
    columns = {spec.image_column, spec.key_column, spec.caption_column, *spec.columns} - {None}
    folder = file.uri.rpartition("/")[0]
    try:
        with persistently(lambda: open_stream(file.uri), file.uri) as stream:
            parquet = pq.ParquetFile(stream)
            groups, first = _row_groups(parquet, start, stop)
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, groups, sorted(columns), use_threads=False):
                rows = batch.slice(max(0, start - first), max(0, stop - max(first, start)))
                for number, row in enumerate(rows.to_pylist(), max(first, start)):
                    yield _entry(file, spec, folder, number, row)
                first += batch.num_rows
    except pa.ArrowException as error:
        raise InputError(f"{file.uri} is damaged ({reason_of(error)}); fetch it again") from error


def read_cell(uri: str, column: str, row: int) -> bytes:
    """One image's bytes. Raises OSError."""
    try:
        with open_stream(uri) as stream:
            parquet = pq.ParquetFile(stream)
            [group], first = _row_groups(parquet, row, row + 1)
            value = parquet.read_row_group(group, [column])[column][row - first].as_py()
    except (pa.ArrowException, ValueError) as error:
        raise OSError(f"cannot read row {row}: {reason_of(error)}") from error
    return (value.get("bytes") if isinstance(value, dict) else value) or b""


def _entry(file: SourceFile, spec: SourceSpec, folder: str, number: int, row: dict[str, Any]) -> ImageEntry:
    value = row[spec.image_column]
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, value)
    caption = row[spec.caption_column] if spec.caption_column else None
    if isinstance(caption, list):
        caption = caption[0] if caption else None
    if isinstance(data, str) or (data is None and path):
        data, uri = None, joined(folder, path)
    else:
        data, uri = data or b"", f"{file.uri}#column={spec.image_column}&row={number}"
    key = row[spec.key_column] if spec.key_column else None
    return ImageEntry(
        key=f"{file.key}/{number}" if key is None else str(key),
        uri=uri,
        num_bytes=len(data or b""),
        mtime_ns=0,
        caption=None if caption is None else str(caption),
        extra={name: row[name] for name in spec.columns} or None,
        data=data,
    )


def _row_groups(parquet: pq.ParquetFile, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold some of the rows, and the number of the first row in them."""
    found, begin, first = [], 0, 0
    for group in range(parquet.metadata.num_row_groups):
        end = begin + parquet.metadata.row_group(group).num_rows
        if begin < stop and start < end:
            first = first if found else begin
            found.append(group)
        begin = end
    return found, first


def _choose(file: SourceFile, schema: pa.Schema, asked: str | None, usual: tuple[str, ...], flag: str) -> str | None:
    if asked:
        return _field(file, schema, asked, flag).name
    return next((name for name in usual if name in schema.names), None)


def _field(file: SourceFile, schema: pa.Schema, name: str, flag: str) -> pa.Field:
    if name not in schema.names:
        raise InputError(f"{file.uri} has no column {name!r}; give {flag} one of {', '.join(schema.names)}")
    return schema.field(name)


def _refuse_type(file: SourceFile, field: pa.Field) -> None:
    kind = field.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    is_both = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (is_text or is_bytes or is_both):
        raise InputError(
            f"{file.uri}: column {field.name!r} is {kind}, expected bytes, a struct of bytes and path, or text; give "
            "another --image-column"
        )


def _arrow_type(file: SourceFile, field: pa.Field) -> str:
    name = str(field.type)
    try:
        pa.type_for_alias(name)
    except ValueError:
        raise InputError(f"{file.uri}: column {field.name!r} is {name}; --columns takes flat types only") from None
    return name
