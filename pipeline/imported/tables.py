"""Rows of Parquet files and lines of key lists, read in order and without holding more than is asked for."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.imported.matrix import plain_lists
from pipeline.source.access.failures import reason_of
from pipeline.source.formats.lines import read_lines
from pipeline.source.formats.parquet import row_groups_between

_AT_ONCE = 1_000
_BUFFER_BYTES = 2**20


class TableReader:
    """Reads rows of a Parquet file from some row on, in order. Close it, or use it in a `with` block."""

    def __init__(self, path: Path, columns: list[str], start: int) -> None:
        """Open the file. No row is read yet.

        Raises:
            InputError: If it cannot be read.
        """
        self._path, self._columns = path, columns
        with _damage_named(path):
            # no pre-buffering: it reads whole row groups, which may be as large as the file
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            groups, first = row_groups_between(self._file, start, self._file.metadata.num_rows)
            self._batches = self._file.iter_batches(_AT_ONCE, groups, columns, use_threads=False)
        self._rest: pa.RecordBatch | None = None
        self._num_before = start - first

    def __enter__(self) -> "TableReader":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def read(self, num_rows: int) -> pa.Table:
        """The next rows.

        Raises:
            InputError: If the file is damaged, or has fewer rows.
        """
        pieces, wanted = [], num_rows
        with _damage_named(self._path):
            while wanted:
                batch = self._rest if self._rest is not None else next(self._batches, None)
                if batch is None:
                    raise pa.ArrowInvalid(f"it has {wanted} rows less than before")
                skipped = min(self._num_before, batch.num_rows)
                self._num_before -= skipped
                piece = batch.slice(skipped, wanted)
                pieces.append(piece)
                wanted -= piece.num_rows
                end = skipped + piece.num_rows
                self._rest = batch.slice(end) if end < batch.num_rows else None
        return pa.Table.from_batches(pieces)


class KeyReader:
    """Reads keys from a text file from some line on, in order; None for a blank line."""

    def __init__(self, path: Path, start: int) -> None:
        """Open the file."""
        self._lines = read_lines(path, "the keys", "a text file with one key per line")
        self._row, self._ahead = start, next(self._lines, None)

    def read(self, num_rows: int) -> list[str | None]:
        """The keys of the next rows."""
        keys: list[str | None] = [None] * num_rows
        while self._ahead and self._ahead[0] <= self._row + num_rows:
            number, line = self._ahead
            if number > self._row:
                keys[number - 1 - self._row] = line
            self._ahead = next(self._lines, None)
        self._row += num_rows
        return keys


def count_lines(path: Path) -> int:
    """Number of lines up to the last one that is not blank.

    Raises:
        InputError: If the file cannot be read, or is not text.
    """
    numbers = (number for number, _ in read_lines(path, "the keys", "a text file with one key per line"))
    return next(iter(deque(numbers, maxlen=1)), 0)


def first_length(path: Path, column: str) -> int | None:
    """Number of values in the first list of a column that has any; None if there is none.

    Raises:
        InputError: If the file is damaged.
    """
    with _damage_named(path), pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
        for batch in file.iter_batches(_AT_ONCE, columns=[column], use_threads=False):
            lengths = pc.list_value_length(plain_lists(pa.Table.from_batches([batch])[column]))
            found = next((length for length in lengths.to_pylist() if length), None)
            if found:
                return found
    return None


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} is damaged or changed ({reason_of(error)}); replace it with an intact copy, then import into a "
            "new store"
        ) from error
