"""A decode process: reads tasks from its standard input, and writes answers to its standard output.

    python -m query.service.images.process

It ends when its standard input does, and when a task takes too long; so it cannot outlive the service.
"""

import os
import sys
from contextlib import suppress
from typing import BinaryIO

from query.service.images.messages import read_message, write_message
from query.service.images.rendering import answer

MOST_MEMORY = 3 * 2**30
"""Bytes. The largest image that `embed` takes by default needs up to 2 GiB: its file, its pixels, and those as RGB."""


def main() -> None:
    """Answer tasks until there are no more."""
    tasks, answers = _own_streams()
    _limit_memory()
    write_message(answers, {"status": "ready"})
    while message := read_message(tasks):
        write_message(answers, *answer(*message))


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """The two streams, under numbers that no library prints to. From here on, nobody reads what libraries print."""
    tasks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # libtiff, for one, prints warnings that an image can provoke
        os.dup2(nothing, stream)
    return tasks, answers


def _limit_memory() -> None:
    """Fail to decode what would take the memory of the machine, and write no core dump of a crash."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):  # a lower limit is already set
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # the service has gone
        main()
