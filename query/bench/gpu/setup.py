"""What a step is made of: tasks, and the rows that they give. Imports nothing heavy."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

OK = "ok"
Status = Literal["ok", "failed", "not installed", "not run"]

Row = dict[str, Any]
"""What was measured once: `name`, and values by name. The runner adds step, task, status and seconds."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Where to measure, and how thoroughly."""

    device: Literal["cpu", "cuda"]
    is_quick: bool
    """Measure as little as possible: to try the steps, not to compare anything."""

    folder: Path
    """Temporary folder."""

    def scaled(self, full: int, quick: int) -> int:
        """A size, or a small one if this run is quick."""
        return quick if self.is_quick else full


@dataclass(frozen=True, slots=True)
class Task:
    """Part of a step that gives its rows together."""

    name: str
    estimate_s: float
    """Roughly how long it takes on one H100. A task that does not fit into the time left is not started."""

    run: Callable[[], Sequence[Row]]


class NotAvailable(Exception):
    """This machine lacks what a task needs. Its message becomes the reason of a row that was not run."""


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time of a call, and its result."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result
