"""Read the next items of a loop ahead of time, in a background thread."""

import threading
from collections.abc import Iterable, Iterator
from queue import Full, Queue
from typing import TypeVar

T = TypeVar("T")
_POLL_S = 0.1


def read_ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield the same items in the same order, reading up to `depth` items ahead in a thread.

    Exceptions from reading are raised here. The thread ends with this iterator, whether or not it was exhausted.
    """
    queue: Queue[tuple[str, object]] = Queue(depth)
    stopped = threading.Event()
    threading.Thread(target=_read, args=(items, queue, stopped), daemon=True, name="read-ahead").start()
    try:
        while True:
            kind, value = queue.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stopped.set()


def _read(items: Iterable[T], queue: Queue, stopped: threading.Event) -> None:
    try:
        for item in items:
            if not _put(queue, ("item", item), stopped):
                return
        _put(queue, ("end", None), stopped)
    except BaseException as error:
        _put(queue, ("error", error), stopped)


def _put(queue: Queue, item: tuple[str, object], stopped: threading.Event) -> bool:
    while not stopped.is_set():
        try:
            queue.put(item, timeout=_POLL_S)
            return True
        except Full:
            continue
    return False
