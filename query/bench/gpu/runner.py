"""Run the steps in a process of their own, and keep what they measured after every task."""

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.durable.atomic import write_json
from pipeline.errors import InputError
from query.bench.gpu.machine import describe_machine
from query.bench.gpu.setup import OK, Row, Setup
from query.bench.gpu.worker import work
from query.settings import BENCH_GPU_STEPS, BenchGpuSettings

_GRACE_S = 20.0
"""How long a task may overrun the time limit before it is ended."""

OnRow = Callable[[Row], None]


def bench_gpu(settings: BenchGpuSettings, on_row: OnRow = lambda row: None) -> dict[str, Any]:
    """Measure step by step.

    Args:
        settings: Which steps, where, and for how long.
        on_row: Called with each new row.

    Returns:
        The results as written to JSON: `environment`, and a row for everything that was measured, or was not, with its
        step, status and reason.

    Raises:
        ConfigError: If the device is not available.
        InputError: If the file to resume cannot be read.
        StoreError: If the JSON file cannot be written.
    """
    started = time.time()
    results = _earlier(settings) if settings.resume else None
    machine = describe_machine(settings.device)
    results = results or {"environment": machine, "runs": [], "rows": []}
    results["runs"].append(machine | {"quick": settings.quick})
    with tempfile.TemporaryDirectory(prefix="clipsieve-bench-") as folder:
        setup = Setup(machine["device"], settings.quick, Path(folder))
        _Run(settings, setup, results, on_row).all_steps(started)
    return results


def _earlier(settings: BenchGpuSettings) -> dict[str, Any] | None:
    path = settings.json_file
    if not path.exists():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        return {key: results[key] for key in ("environment", "runs", "rows")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot resume from {path}: expected the JSON file of an earlier `clipsieve bench gpu`; give its path, or "
            "leave out --resume"
        ) from error


class _Run:
    """One run: the steps left, and what is known so far."""

    def __init__(self, settings: BenchGpuSettings, setup: Setup, results: dict[str, Any], on_row: OnRow) -> None:
        self._settings, self._setup, self._results, self._on_row = settings, setup, results, on_row
        tried = {(row["step"], row["task"]) for row in results["rows"] if row["status"] == OK}
        unfinished = {(row["step"], row["task"]) for row in results["rows"] if row["status"] != OK}
        self._finished = tried - unfinished

    def all_steps(self, started: float) -> None:
        asked = self._settings.steps()
        deadline = started + 60 * self._settings.minutes if self._settings.minutes else float("inf")
        todo = [step for step in BENCH_GPU_STEPS if step in asked]
        while todo and time.time() < deadline:
            todo = self._in_one_process(todo, deadline)
        for step in todo:
            self._keep(step, step, [{"name": step, "status": "not run", "reason": "no time was left"}])

    def _in_one_process(self, steps: list[str], deadline: float) -> list[str]:
        """Run steps until all are done or the process ends; return those that are left."""
        context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(there, self._setup, steps, frozenset(self._finished), deadline))
        process.start()
        there.close()
        current, is_heard = None, False
        try:
            while message := self._receive(here, deadline):
                kind, *place = message
                is_heard = True
                if kind == "done":
                    return []
                if kind == "started":
                    current = place
                else:
                    self._keep(*place)
                    current, last = None, place[0]
                    steps = steps[steps.index(last) :]
        finally:
            if process.is_alive() and (current or time.time() > deadline):
                process.terminate()
            process.join(_GRACE_S)
            if process.is_alive():
                process.kill()
                process.join()
            here.close()
        if current is None and is_heard:
            return steps
        step, task = current or (steps[0], steps[0])
        reason = f"it did not end within {_GRACE_S:.0f} s of the time limit"
        if time.time() < deadline + _GRACE_S:
            reason = f"its process ended with exit code {process.exitcode}"
        self._keep(step, task, [{"name": task, "status": "failed", "reason": reason}])
        steps = steps[steps.index(step) :]
        return steps if is_heard else steps[1:]

    def _receive(self, connection: Connection, deadline: float) -> tuple[Any, ...] | None:
        """The next message; None if the process has ended, or has overrun the time limit."""
        left_s = min(deadline + _GRACE_S - time.time(), 1e6)
        try:
            return connection.recv() if connection.poll(max(0.0, left_s)) else None
        except (EOFError, ConnectionError):
            return None

    def _keep(self, step: str, task: str, rows: list[Row]) -> None:
        """Replace the rows of a task, and write everything known so far."""
        rows = [{"step": step, "task": task, **row} for row in rows]
        others = [row for row in self._results["rows"] if (row["step"], row["task"]) != (step, task)]
        self._results["rows"] = sorted([*others, *rows], key=lambda row: BENCH_GPU_STEPS.index(row["step"]))
        self._finished |= {(step, task)}  # whatever the outcome: not again in this run
        for row in rows:
            self._on_row(row)
        if self._settings.json_file:
            write_json(self._settings.json_file, self._results)
