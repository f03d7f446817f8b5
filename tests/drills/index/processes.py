"""Run the command line as a user does, and watch its anonymous memory."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CLIPSIEVE = (sys.executable, "-m", "query.cli")
SAMPLED_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Run:
    """What a command printed, and what it took."""

    exit_code: int
    results: dict
    errors: str
    seconds: float
    cpu_s: float
    """Seconds of all its threads and children."""
    peak_anonymous: int
    """Bytes, sampled from /proc."""


def environment() -> dict[str, str]:
    """Where commands of this checkout run."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}


def anonymous(pid: int | str = "self") -> int:
    """Bytes of anonymous memory of a process; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def children_s() -> float:
    """CPU seconds of the processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: Sequence[str | Path]) -> Run:
    """Run a command that prints JSON, and sample its memory until it ends."""
    peak, started, cpu_s = 0, time.perf_counter(), children_s()
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    printed: list[tuple[str, str]] = []
    reader = threading.Thread(target=lambda: printed.append(process.communicate()))
    reader.start()
    while reader.is_alive():
        peak = max(peak, anonymous(process.pid))
        reader.join(SAMPLED_EVERY_S)
    [(output, errors)] = printed
    results = json.loads(output) if output.strip().startswith("{") else {}
    return Run(process.returncode, results, errors, time.perf_counter() - started, children_s() - cpu_s, peak)


def clipsieve(verb: str, *arguments: str | Path) -> Run:
    """Run `clipsieve VERB ... --json`."""
    return run([*CLIPSIEVE, verb, *arguments, "--json"])
