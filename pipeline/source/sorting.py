"""Sort more items than fit in memory: sorted runs go to a temporary file and are merged on reading."""

import heapq
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO, Generic, TypeVar

from pipeline.errors import StoreError

T = TypeVar("T")
RUN_LENGTH = 50_000
_BATCH = 250


class Sorted(Generic[T]):
    """Items sorted by `key`. The sort is stable, and the result can be iterated any number of times."""

    def __init__(self, items: Iterable[T], key: Callable[[T], Any], run_length: int = RUN_LENGTH) -> None:
        """Consume all of `items`. Fewer than `run_length` stay in memory; more go to a temporary file."""
        self._key = key
        self._in_memory: list[T] = []
        self._file: BinaryIO | None = None
        self._runs: list[tuple[int, int]] = []  # start and end positions in the file
        self._count = 0
        source = iter(items)
        while run := list(islice(source, run_length)):
            self._count += len(run)
            run.sort(key=key)
            if len(run) < run_length and self._file is None:
                self._in_memory = run
            else:
                self._spill(run)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        if self._file is None:
            return iter(self._in_memory)
        return heapq.merge(*(self._read(*run) for run in self._runs), key=self._key)

    def _spill(self, run: list[T]) -> None:
        try:
            self._file = self._file or tempfile.TemporaryFile(prefix="clipsieve-")
            start = self._file.tell()
            for first in range(0, len(run), _BATCH):
                pickle.dump(run[first : first + _BATCH], self._file, pickle.HIGHEST_PROTOCOL)
            self._file.flush()
        except OSError as error:
            raise StoreError(
                f"cannot sort {self._count} items in {tempfile.gettempdir()}: {error.strerror}; free up space "
                "there, or set TMPDIR to a larger disk"
            ) from error
        self._runs.append((start, self._file.tell()))

    def _read(self, position: int, end: int) -> Iterator[T]:
        while position < end:
            self._file.seek(position)  # all runs and iterators share this file
            batch = pickle.load(self._file)
            position = self._file.tell()
            yield from batch
