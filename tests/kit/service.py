"""A real `clipsieve serve` in a process of its own, on a free port."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTING_S = 120
ENDING_S = 60


@dataclass
class Running:
    """A service that answers."""

    url: str
    """Without the slash at the end."""
    process: subprocess.Popen
    log: Path

    def end(self) -> int:
        """Ask it to end, as a system does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(ENDING_S)


@contextmanager
def running(*stores: Path, flags: tuple[str, ...] = (), environment: dict[str, str] | None = None) -> Iterator[Running]:
    """Serve stores until the block ends."""
    command = [sys.executable, "-m", "query.cli", "serve", *map(str, stores), "--port", "0", *flags]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        try:
            yield Running(_address(process, log), process, log)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(ENDING_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            process.stdout.close()


def _address(process: subprocess.Popen, log: Path) -> str:
    started = time.monotonic()
    while time.monotonic() - started < STARTING_S:
        line = process.stdout.readline()
        if line.startswith("serving at "):
            return line.split()[-1].rstrip("/")
        if not line:
            break
    process.kill()
    raise AssertionError(f"the service did not start:\n{log.read_text()}")
