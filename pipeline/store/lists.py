"""plan/00000.parquet: the images of a plan that lists them individually, with one row group per shard."""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError, first_line
from pipeline.source.entry import ImageEntry

_ENTRY_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("extra", pa.string()),
    ]
)
_REPLACES = pa.field("replaces", pa.int64())


class EntryWriter:
    """Writes listed images to a plan's Parquet file, one row group per call."""

    def __init__(self, path: Path, names_replaced: bool = False) -> None:
        """Create the file. If `names_replaced`, it also says which row each image replaces."""
        self._schema = _ENTRY_SCHEMA.append(_REPLACES) if names_replaced else _ENTRY_SCHEMA
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def __enter__(self) -> "EntryWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, entries: Sequence[ImageEntry]) -> None:
        """Write the images of one shard."""
        columns = {name: [getattr(entry, name) for entry in entries] for name in self._schema.names}
        columns["extra"] = [
            None if extra is None else json.dumps(extra, default=_bytes_as_json) for extra in columns["extra"]
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=len(entries))


def read_entries(path: Path, groups: Iterable[int]) -> Iterator[ImageEntry]:
    """Yield the listed images of some row groups. Holds one row group in memory at a time.

    Raises:
        StoreError: If the file is missing or damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            for group in groups:
                for row in file.read_row_group(group).to_pylist():
                    row["extra"] = None if row["extra"] is None else _with_bytes(json.loads(row["extra"]))
                    yield ImageEntry(**row)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = first_line(error)
        raise StoreError(f"cannot read {path}: {reason}; restore it from a backup, or embed again") from error


def _bytes_as_json(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


def _with_bytes(extra: dict[str, Any]) -> dict[str, Any]:
    # a carried value is never an object itself
    return {
        name: base64.b64decode(value["base64"]) if isinstance(value, dict) else value for name, value in extra.items()
    }
