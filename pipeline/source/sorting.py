"""Sort more than memory holds: sorted runs in temporary files, merged when they are read."""

import heapq
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO, Generic, TypeVar

T = TypeVar("T")
RUN_LENGTH = 200_000
_BATCH = 1000


class Sorted(Generic[T]):
    """Items in the order of `key`, equal ones in the order they came; can be iterated again and again."""

    def __init__(self, items: Iterable[T], key: Callable[[T], Any], run_length: int = RUN_LENGTH) -> None:
        """Take all of `items`; `run_length` of them are in memory at a time."""
        self._key = key
        self._runs: list[BinaryIO] = []
        self._in_memory: list[T] = []
        self._count = 0
        source = iter(items)
        while run := list(islice(source, run_length)):
            self._count += len(run)
            run.sort(key=key)
            if self._in_memory:
                self._runs.append(_spilled(self._in_memory))
            self._in_memory = run
        if self._runs:
            self._runs.append(_spilled(self._in_memory))
            self._in_memory = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        if not self._runs:
            return iter(self._in_memory)
        return heapq.merge(*(_read(run) for run in self._runs), key=self._key)


def _spilled(items: list[Any]) -> BinaryIO:
    file = tempfile.TemporaryFile(prefix="clipsieve-")
    for start in range(0, len(items), _BATCH):
        pickle.dump(items[start : start + _BATCH], file, pickle.HIGHEST_PROTOCOL)
    return file


def _read(file: BinaryIO) -> Iterator[Any]:
    position = 0
    while True:
        file.seek(position)  # one file may be read by several iterations in turn
        try:
            batch = pickle.load(file)
        except EOFError:
            return
        position = file.tell()
        yield from batch
