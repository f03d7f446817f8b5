"""What a measured number has to be accompanied by: command, date, hardware, versions."""

import hashlib
import platform
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pipeline.machine import cpu_name, num_cores


def provenance() -> dict[str, str | int]:
    """Where, when and with what this process measures."""
    return {
        "command": " ".join(["clipsieve", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "cores": num_cores(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "open_clip": version("open_clip_torch"),
    }


@cache
def code_sha256() -> str:
    """Hash of this package's source: two machines with one hash run the same code."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
