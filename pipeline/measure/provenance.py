"""Provenance of a measurement: command, date, hardware, versions."""

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version

from pipeline.machine import cpu_name, num_cores


def provenance() -> dict[str, str | int]:
    """The command, date, hardware and versions of this process."""
    return {
        "command": " ".join(["clipsieve", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "cores": num_cores(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "open_clip": version("open_clip_torch"),
    }
