"""Messages between the driver and its encode workers."""

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pipeline
from pipeline.model.precision import MIN_COSINE, Kernels, Measurement, PrecisionChoice
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.spec import EncoderSpec, ModelSource
from pipeline.source.sample import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCalibration:
    """How activations are rounded in int8, as the bytes of its file, and where it is from."""

    data: bytes = field(repr=False)
    path: str = field(default="", compare=False)
    is_of_store: bool = field(default=False, compare=False)
    """Whether it is that of the store that the run continues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrating:
    """What it took to calibrate."""

    num_images: int
    seconds: float
    cosine: float
    """Mean cosine of their embeddings in int8 to those in float."""

    num_float_blocks: int
    """Blocks that stay in float."""

    warning: str | None

    def describe(self) -> str:
        """One line."""
        in_float = f" with the first {self.num_float_blocks} blocks in float" if self.num_float_blocks else ""
        images = f"{self.num_images} image{'s'[: self.num_images != 1]}"
        return f"{images}, {self.seconds:.1f} s, cosine to float {self.cosine:.3f}{in_float}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRequest:
    """What the workers must load.

    If None, the first of them measures the precision and the kernels, and their cores set the threads.
    """

    source: ModelSource
    policy: PruningPolicy | None
    precision: PrecisionChoice | None
    """None, not `auto`, if it is to be measured."""

    kernels: Kernels | None = None
    calibration: KnownCalibration | None = None
    """In int8, how activations are rounded."""

    sample: Sample | None = None
    """In int8, what to calibrate on if that is not known."""

    min_cosine: float = MIN_COSINE
    """Least mean cosine of int8 to float when it is calibrated."""

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
    calibration: KnownCalibration | None = None
    """In int8, how it rounds activations."""

    calibrating: Calibrating | None = None
    """What it measured for that, if it did."""

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
