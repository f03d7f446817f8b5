"""Settings of the Ray workers, shared by `embed` and `evaluate`."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.model.precision import PrecisionChoice
from pipeline.model.spec import DecoderName, DeviceChoice
from pipeline.settings.load import Settings
from pipeline.source.limits import DEFAULT_MAX_PIXELS

CompileChoice = Literal["auto", "on", "off"]


class WorkerSettings(Settings):
    """How Ray workers encode: shared by every verb that embeds."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "how good": ("precision", "decoder"),
        "how fast": ("device", "workers", "batch_size", "ray_address"),
        "safety": ("max_pixels",),
    }

    precision: PrecisionChoice = "auto"
    """Number format of weights and activations. auto measures which is fastest on the first worker. 8bit is int8 on
    a CPU and fp8 on a GPU: faster, at some cost in recall, and never taken by auto."""

    device: DeviceChoice = "auto"
    """Where workers encode. auto uses GPUs if there are any; with cpu, workers use no GPU."""

    batch_size: int | None = Field(default=None, ge=1)
    """Images per forward pass. By default, 32 on a CPU and 256 on a GPU."""

    workers: int | None = Field(default=None, ge=1)
    """Number of encode workers. By default, one per GPU, or one per CPU core if there is no GPU."""

    decoder: DecoderName = "pillow"
    """JPEG decoder: pillow (CPU), or torchvision (nvJPEG on the GPU, only where it matches Pillow)."""

    ray_address: str | None = None
    """Ray cluster to join. Unless this or RAY_ADDRESS is given, Ray starts on this machine."""

    max_pixels: int | None = Field(default=None, ge=1)
    """Refuse images with more pixels; they become rows with status too_large. By default, 200,000,000 in a new
    store."""

    @property
    def pixel_limit(self) -> int:
        """The limit on pixels of a new store."""
        return self.max_pixels or DEFAULT_MAX_PIXELS
