"""TODO."""

from typing import Literal

from pydantic import Field

from pipeline.model.spec import DecoderName, DeviceChoice
from pipeline.settings.load import Settings
from pipeline.source.limits import DEFAULT_MAX_PIXELS


class WorkerSettings(Settings):
    """How Ray workers encode: shared by every verb that embeds."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Type of weights and activations; auto asks the workers' hardware."""

    device: DeviceChoice = "auto"
    """Where to encode; auto takes the GPUs that Ray sees, else the CPUs."""

    batch_size: int | None = Field(default=None, ge=1)
    """Images per forward pass; 32 on CPU, 256 on GPU unless given."""

    workers: int | None = Field(default=None, ge=1)
    """Encode workers; one per GPU, else one per CPU core, unless given."""

    decoder: DecoderName = "pillow"
    """What decodes JPEGs: pillow on CPUs, or torchvision on the worker's GPU (nvJPEG) those whose pixels agree."""

    ray_address: str | None = None
    """Ray cluster to join; RAY_ADDRESS is honoured, else Ray starts on this machine."""

    max_pixels: int = Field(default=DEFAULT_MAX_PIXELS, ge=1)
    """Images with more pixels are refused, as rows with status too_large."""
