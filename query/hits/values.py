"""The values of tables of hits in Python, and as JSON can hold them. Carried columns have any type of a store."""

import math
from datetime import date, time
from typing import Any

import pyarrow as pa

_is = pa.types


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows with Python values. Times are cut to microseconds; those out of Python's range are text."""
    columns = {name: _values(table[name]) for name in table.column_names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def json_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows with what JSON can hold: null for numbers that are not finite, ISO 8601 for dates, text for the rest."""
    return [json_row(row) for row in rows_of(table)]


def json_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row as in `json_rows`."""
    return {name: _plain(value) for name, value in row.items()}


def _values(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if _is.is_temporal(kind) and getattr(kind, "unit", None) == "ns":
        coarser = next(make for is_it, make in _COARSER if is_it(kind))
        column = column.cast(coarser, safe=False)
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):  # a year that Python's dates do not have
        return column.cast(pa.string()).to_pylist()


_COARSER = (
    (_is.is_timestamp, pa.timestamp("us")),
    (_is.is_time, pa.time64("us")),
    (_is.is_duration, pa.duration("us")),
)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.isoformat() if isinstance(value, date | time) else str(value)
