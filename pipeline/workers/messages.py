"""TODO."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pipeline
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.spec import EncoderSpec, ModelSource, Precision


@dataclass(frozen=True, slots=True)
class EncoderRequest:
    """What the workers shall load; None lets their hardware decide on precision, and their cores on threads."""

    source: ModelSource
    policy: PruningPolicy | None
    precision: Precision | None
    max_pixels: int
    threads: int | None = None
    batch_size: int | None = None
    """Images per forward pass to warm up with, unless it is the hardware's usual number."""
    policy_is_default: bool = False
    """Whether a tower that cannot be pruned may go without."""
    image_timeout_s: float | None = None
    canary: float | None = None
    is_baseline: bool = False
    """Whether the unpruned model shall run as open_clip runs it, to be measured against."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Where a worker runs, and by which code."""

    host: str
    version: str
    code_sha256: str
    preferred_precision: Precision


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker found itself to be after loading."""

    spec: EncoderSpec
    warning: str | None
    device: str
    batch_size: int
    threads: int
    versions: dict[str, str]


@cache
def code_sha256() -> str:
    """Hash of this package's source: two machines with one hash run the same code."""
    root = Path(pipeline.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
