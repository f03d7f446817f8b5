"""The machine and the software that a measurement ran on. Imports no heavy library: versions come from metadata."""

import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.machine import cpu_name, num_cores
from pipeline.model.spec import DeviceChoice

_PACKAGES = (
    "torch",
    "torchvision",
    "triton",
    "open_clip_torch",
    "timm",
    "faiss-gpu",
    "faiss-cpu",
    "ray",
    "pyarrow",
    "pillow",
    "numpy",
)
_QUERY = "name,driver_version,memory.total,clocks.max.sm,power.limit"


def describe_machine(asked: DeviceChoice) -> dict[str, Any]:
    """Command, date, hardware, driver and versions. `device` is `cuda` if a GPU was asked for, or found by `auto`.

    Raises:
        ConfigError: If a GPU is asked for, and the machine has none.
    """
    gpus = _gpus() or [{"name": "unknown"}] * Path("/dev/nvidiactl").exists()
    if asked == "cuda" and not gpus:
        raise ConfigError("device = 'cuda': this machine has no GPU; give --device cpu, or run nvidia-smi")
    return {
        "command": " ".join(["clipsieve", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": "cuda" if gpus and asked != "cpu" else "cpu",
        "gpus": gpus,
        "cpu": cpu_name(),
        "cores": num_cores(),
        "system": platform.platform(),
        "versions": {"clipsieve": __version__, "python": platform.python_version()} | _versions(),
    }


def _gpus() -> list[dict[str, str]]:
    """What the driver says of each GPU."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    return [dict(zip(_QUERY.split(","), line.split(", "), strict=False)) for line in lines]


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found
