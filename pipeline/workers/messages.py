"""Messages between the driver and its encode workers."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pipeline
from pipeline.model.precision import Kernels, Measurement, Precision
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.spec import EncoderSpec, ModelSource


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRequest:
    """What the workers must load.

    If None, the first of them measures the precision and the kernels, and their cores set the threads.
    """

    source: ModelSource
    policy: PruningPolicy | None
    precision: Precision | None
    kernels: Kernels | None = None
    max_pixels: int
    threads: int | None = None
    batch_size: int | None = None
    """Images per forward pass to warm up with; None is the default for the device."""

    policy_is_default: bool = False
    """Whether a tower that cannot be pruned may run unpruned."""

    image_timeout_s: float | None = None
    canary: float | None = None
    is_baseline: bool = False
    """Whether to run the unpruned model exactly as open_clip does, as the baseline of a measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIdentity:
    """Where a worker runs, and the version of its code."""

    host: str
    version: str
    code_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """What a worker loaded, and the hardware it runs on."""

    spec: EncoderSpec
    warning: str | None
    device: str
    batch_size: int
    threads: int
    kernels: Kernels
    measurement: Measurement | None
    versions: dict[str, str]


@cache
def code_sha256() -> str:
    """Hash of the source of `pipeline`: machines with the same hash run the same code."""
    root = Path(pipeline.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
