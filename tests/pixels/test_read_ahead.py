"""Reading ahead in a background thread."""

import threading
import time

import pytest

from pipeline.pixels.read_ahead import read_ahead


def test_same_items_in_the_same_order():
    assert list(read_ahead(range(1000))) == list(range(1000))
    assert list(read_ahead([])) == []
    assert list(read_ahead([None, 0, ()])) == [None, 0, ()]


def test_no_more_is_read_ahead_than_depth():
    taken = []

    def source():
        for number in range(100):
            taken.append(number)
            yield number

    items = read_ahead(source(), depth=3)
    assert next(items) == 0
    time.sleep(0.3)
    assert len(taken) <= 1 + 3 + 1  # the thread holds one more
    items.close()


def test_errors_from_reading_are_raised():
    def source():
        yield 1
        raise OSError("gone")

    items = read_ahead(source())
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)


def test_the_thread_ends_when_the_iterator_is_closed():
    items = read_ahead(iter(range(10**9)))
    next(items)
    items.close()
    deadline = time.monotonic() + 10
    while any(thread.name == "read-ahead" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
