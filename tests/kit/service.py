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
NO_MODEL = "from query.service.stores import ServedStore; ServedStore.warm_up = lambda *_: None"
"""A prelude for stores of vectors that no model made. Nothing can ask them for texts."""


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
def running(
    *stores: Path,
    flags: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    prelude: str = "",
    is_ready: bool = True,
) -> Iterator[Running]:
    """Serve stores until the block ends.

    Args:
        stores: One or two.
        flags: More of the command line.
        environment: What is added to it.
        prelude: Python that the process runs first, such as one that makes something slow.
        is_ready: Wait until the models are loaded, not only until it listens.
    """
    program = f"import sys\n{prelude}\nfrom query.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "serve", *map(str, stores), "--port", "0", "--no-warm-images", *flags]
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
            url = _line(process, log, "serving at ").split()[-1].rstrip("/")
            if is_ready:
                _line(process, log, "ready")
            yield Running(url, process, log)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(ENDING_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            process.stdout.close()


def _line(process: subprocess.Popen, log: Path, start: str) -> str:
    """The next line of standard output that begins like this."""
    started = time.monotonic()
    while time.monotonic() - started < STARTING_S:
        line = process.stdout.readline()
        if line.startswith(start):
            return line
        if not line:
            break
    process.kill()
    raise AssertionError(f"the service did not start:\n{log.read_text()}")
