"""Write tables of hits to a file, piece by piece: Parquet, CSV or JSON lines, by its suffix."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.durable.atomic import write_atomically
from query.hits.values import json_rows


class Writer(Protocol):
    """Takes tables of one schema."""

    def write_table(self, table: pa.Table) -> None:
        """Append rows."""
        ...


class _JsonLines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write_table(self, table: pa.Table) -> None:
        for row in json_rows(table):
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


@contextmanager
def writer_to(path: Path, suffix: str, schema: pa.Schema) -> Iterator[Writer]:
    """Open a file of hits.

    Args:
        path: Where to write.
        suffix: .csv or .jsonl; anything else is Parquet.
        schema: Of the tables that follow.
    """
    if suffix == ".csv":
        writer = pyarrow.csv.CSVWriter(path, schema)
    elif suffix == ".jsonl":
        writer = _JsonLines(path)
    else:
        # floats hardly repeat: a dictionary of them takes longer to write, and makes the file larger
        repeated = [field.name for field in schema if not pa.types.is_floating(field.type)]
        writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated)
    try:
        yield writer
    finally:
        writer.close()


def write_hits(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write the hits of single queries, with all columns; `query` is the number of the query, from 0.

    Raises:
        StoreError: If the file cannot be written.
    """
    numbered = [
        table.add_column(0, "query", pa.array([number] * table.num_rows, pa.int64()))
        for number, table in enumerate(tables)
    ]

    def write(temporary: Path) -> None:
        with writer_to(temporary, path.suffix.lower(), numbered[0].schema) as writer:
            for table in numbered:
                writer.write_table(table)

    write_atomically(path, write)
