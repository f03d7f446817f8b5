"""The process that runs the steps, so that a crash or a hang costs one task and not the measurement."""

import gc
import importlib
import sys
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from pipeline.errors import first_line
from query.bench.gpu.setup import OK, NotAvailable, Row, Setup, Task

_OURS = ("pipeline", "indexer", "query")


def work(
    connection: Connection, setup: Setup, steps: Sequence[str], finished: Collection[tuple[str, str]], deadline: float
) -> None:
    """Run steps and send `("started", step, task)` and `("rows", step, task, rows)` for each task, then close.

    Stops after a task that failed on a GPU: an error there can spoil everything that this process does later.

    Args:
        connection: Where to send. Its other end replaces this process if it ends early.
        setup: Where to measure.
        steps: Names of the steps.
        finished: Tasks that need not run, as (step, task).
        deadline: `time.time()` after which no task starts.
    """
    from pipeline.machine import prepare_for_torch

    prepare_for_torch()
    for step in steps:
        for task in _tasks(setup, step):
            if (step, task.name) in finished:
                continue
            connection.send(("started", step, task.name))
            rows = _run(task, deadline)
            connection.send(("rows", step, task.name, rows))
            del task
            _free_memory()
            if setup.device == "cuda" and any(row["status"] == "failed" for row in rows):
                return
    connection.send(("done",))


def _tasks(setup: Setup, step: str) -> Iterator[Task]:
    """The tasks of a step. If they cannot even be listed, one task that fails for the same reason."""
    try:
        yield from importlib.import_module(f"query.bench.gpu.steps.{step.replace('-', '_')}").tasks(setup)
    except Exception as error:
        reason = error

        def fail() -> Sequence[Row]:
            raise reason

        yield Task(step, 0.0, fail)


def _run(task: Task, deadline: float) -> list[Row]:
    left_s = deadline - time.time()
    if task.estimate_s > left_s:
        reason = f"it takes about {task.estimate_s:.0f} s, and {max(0.0, left_s):.0f} s were left"
        return [{"name": task.name, "status": "not run", "reason": reason}]
    started = time.perf_counter()
    try:
        rows = [{"status": OK, **row} for row in task.run()]
    except Exception as error:
        rows = [{"name": task.name, **_problem(error)}]
    elapsed_s = round(time.perf_counter() - started, 3)
    return [row | {"task_s": elapsed_s} for row in rows]


def _problem(error: Exception) -> dict[str, Any]:
    if isinstance(error, NotAvailable):
        return {"status": "not run", "reason": str(error)}
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in _OURS:
        return {"status": "not installed", "reason": f"package {error.name} is not installed"}
    frames = traceback.extract_tb(error.__traceback__)
    place = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames[-6:]))
    return {"status": "failed", "reason": f"{type(error).__name__}: {first_line(error)}", "at": place}


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()
