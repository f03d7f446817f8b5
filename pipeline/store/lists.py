"""plan/00000.parquet: the images of a plan that lists them individually, with one row group per shard."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

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


class EntryWriter:
    """Writes listed images to a plan's Parquet file, one row group per call."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, _ENTRY_SCHEMA, compression="zstd")

    def __enter__(self) -> "EntryWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, entries: Sequence[ImageEntry]) -> None:
        """Write the images of one shard."""
        columns = {name: [getattr(entry, name) for entry in entries] for name in _ENTRY_SCHEMA.names}
        columns["extra"] = [None if extra is None else json.dumps(extra) for extra in columns["extra"]]
        self._writer.write_table(pa.table(columns, schema=_ENTRY_SCHEMA), row_group_size=len(entries))


def read_entries(path: Path, groups: Iterable[int]) -> Iterator[ImageEntry]:
    """Yield the listed images of some row groups. Holds one row group in memory at a time.

    Raises:
        StoreError: If the file is missing or damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            for group in groups:
                for row in file.read_row_group(group).to_pylist():
                    row["extra"] = None if row["extra"] is None else json.loads(row["extra"])
                    yield ImageEntry(**row)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = first_line(error)
        raise StoreError(f"cannot read {path}: {reason}; restore it from a backup, or embed again") from error
