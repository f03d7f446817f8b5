"""Types of Parquet columns: which can hold images, keys and captions, how they are carried, and their values."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.source.formats.text import column_of

_is = pa.types
_TEXTS = (_is.is_string, _is.is_large_string, _is.is_string_view)
_BYTES = (_is.is_binary, _is.is_large_binary, _is.is_binary_view, _is.is_fixed_size_binary)
_LISTS = (_is.is_list, _is.is_large_list, _is.is_fixed_size_list, _is.is_list_view, _is.is_large_list_view)


def refuse_image_type(uri: str, field: pa.Field) -> None:
    """Refuse a column that cannot hold images.

    Raises:
        InputError: If its type is not bytes, text, or a struct of bytes and path.
    """
    kind = _flat(field.type)
    if _is.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        parts = [kind.field(name).type for name in ("bytes", "path") if kind.get_field_index(name) >= 0]
        is_image = all(_is_text(part) for part in parts)
    else:
        is_image = _is_text(kind) and not _is.is_null(kind)
    if not is_image:
        raise InputError(
            f"{uri}: column {field.name!r} is {kind}, expected bytes, a struct of bytes and path, or text; pass "
            "another --image-column"
        )


def fault_of_key(field: pa.Field) -> str | None:
    """What is wrong with a column as keys, or None."""
    kind = _flat(field.type)
    if _is_text(kind) or _is.is_integer(kind):
        return None
    return f"column {field.name!r} is {kind}, but keys must be text or integers; pass another --key-column"


def fault_of_captions(field: pa.Field) -> str | None:
    """What is wrong with a column as captions, or None."""
    kind = _flat(field.type)
    if _is_text(kind) or (_any(_LISTS, kind) and _is_text(_flat(kind.value_type))):
        return None
    return (
        f"column {field.name!r} is {kind}, but captions must be text or lists of text; pass another --caption-column, "
        "or store that column as text"
    )


def fault_of_uris(field: pa.Field) -> str | None:
    """What is wrong with a column as paths or URLs, or None."""
    kind = _flat(field.type)
    if _is_text(kind):
        return None
    return f"column {field.name!r} is {kind}, but paths and URLs must be text; pass another --uri-column"


def floats_of(field: pa.Field) -> tuple[pa.DataType, int | None] | None:
    """Type and number of the floats in each row of a column of embeddings, or None if it is no such column.

    The number is None if rows may differ in it.
    """
    kind = _flat(field.type)
    if not _any(_LISTS, kind) or not _is.is_floating(kind.value_type):
        return None
    return kind.value_type, kind.list_size if _is.is_fixed_size_list(kind) else None


def kind_carried(field: pa.Field) -> str:
    """The type that a column has in a store. What a store's columns cannot be, such as a list, is carried as text."""
    kind = _flat(field.type)
    if _is.is_fixed_size_binary(kind):
        return "binary"
    name = str(pa.timestamp(kind.unit) if _is.is_timestamp(kind) else kind)  # time zones become UTC
    try:
        pa.type_for_alias(name)
    except ValueError:
        return "string"
    return name


def values_of(column: pa.Array) -> list[Any]:
    """Values as Python objects, but times as integers: datetime has no nanoseconds, and a time zone may be unknown."""
    kind = _flat(column.type)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if _is.is_timestamp(kind) or ((_is.is_time(kind) or _is.is_duration(kind)) and kind.unit == "ns"):
        return column.cast(kind).cast(pa.int64()).to_pylist()
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, KeyError):  # not UTF-8, a year out of Python's range, or an unknown time zone
        values = column.cast(kind).cast(_raw(kind)).to_pylist()
        return [column_of(value) for value in values] if _any(_TEXTS, kind) else values


def _raw(kind: pa.DataType) -> pa.DataType:
    """The type with texts as bytes and times as integers, which Python can always hold."""
    if _is.is_dictionary(kind):
        return _raw(kind.value_type)
    if _any(_TEXTS, kind):
        return pa.large_binary()
    if _is.is_temporal(kind):
        return pa.int32() if kind.bit_width == 32 else pa.int64()
    if _is.is_struct(kind):
        return pa.struct([part.with_type(_raw(part.type)) for part in kind])
    if _is.is_map(kind):
        return pa.map_(_raw(kind.key_type), _raw(kind.item_type))
    return pa.large_list(_raw(kind.value_type)) if _any(_LISTS, kind) else kind


def _flat(kind: pa.DataType) -> pa.DataType:
    """The type of the values, however they are stored."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    return kind.value_type if _is.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    """Whether it holds text, also as bytes; a column without any value has the type null."""
    return _is.is_null(kind) or _any((*_TEXTS, *_BYTES), kind)


def _any(tests: tuple[Callable[[pa.DataType], bool], ...], kind: pa.DataType) -> bool:
    return any(test(kind) for test in tests)
