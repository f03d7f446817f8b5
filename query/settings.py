"""Settings of `search`, `evaluate`, `inspect`, `bench model`, `demo` and `doctor`."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from pipeline.settings.load import Settings
from pipeline.settings.model import ModelSettings, PoliciesSettings
from pipeline.settings.workers import WorkerSettings


class SearchSettings(Settings):
    """Find the images of a store that a text describes best."""

    store: CliPositionalArg[Path]
    """An indexed store."""

    query: CliPositionalArg[str]
    """What to look for, in words."""

    k: int = Field(default=10, ge=1)
    """Number of hits."""

    as_json: bool = Field(default=False, alias="json")
    """Print JSON instead of a table."""

    sheet: Path | None = None
    """Write a contact sheet of the hits to this PNG."""

    partial: bool = False
    """Search an index that does not cover the store."""


class EvaluateSettings(WorkerSettings, PoliciesSettings):
    """Measure recall and speed of the pruned model against the unpruned one, on your own images and captions."""

    images: Path
    """Folder of images; every one of them is in the gallery."""

    captions: Path
    """TSV of `key TAB caption`; several captions an image are allowed."""

    control: str | None = None
    """Adapter trained alike without pruning: the unpruned model with it shows what training alone gives."""

    json_path: Path | None = Field(default=None, alias="json")
    """Write the results to this file."""

    out: Path | None = None
    """Keep the stores in this folder, instead of a temporary one."""

    bench_images: int = Field(default=128, ge=1)
    """Images on which the bare image tower is timed."""


class BenchPoliciesSettings(ModelSettings):
    """Measure recall against speed of every policy of a plan, on your own images and captions, in one process."""

    plan: CliPositionalArg[Path]
    """YAML list of series of policies; see configs/bench/."""

    images: Path
    """Folder of images; those that have captions are the gallery."""

    captions: Path
    """TSV of `key TAB caption`; several captions an image are allowed."""

    num_images: int | None = Field(default=None, ge=1)
    """Draw so many of the captioned images, without regard to order; all of them unless given."""

    seed: int = 1
    """Of that draw."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Type of weights and activations; auto takes what the device computes fastest."""

    batch_size: int | None = Field(default=None, ge=1)
    """Images per forward pass; 32 on CPU, 256 on GPU unless given."""

    bench_images: int = Field(default=64, ge=1)
    """Images on which each policy is timed in a round."""

    rounds: int = Field(default=7, ge=1)
    """Rounds that count; each runs every policy, a first one is thrown away."""

    json_path: Path | None = Field(default=None, alias="json")
    """Write the results to this file."""

    plot: Path | None = None
    """Draw recall against measured speed-up to this PNG; needs matplotlib (pip install "clipsieve[plot]")."""


class InspectSettings(ModelSettings):
    """Show what a policy does to a model: tokens and multiply-adds of every block, and the patches it keeps."""

    image: Path | None = None
    """Photograph on which to show the patches that are kept."""

    picture: Path = Path("kept.png")
    """PNG to draw it to; written where an image is given."""

    as_json: bool = Field(default=False, alias="json")
    """Print JSON instead of a table."""


class BenchModelSettings(PoliciesSettings):
    """Time the image tower under policies, side by side with the unpruned tower and with open_clip's own call."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto takes a GPU where there is one."""

    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Type of weights and activations; auto takes what the device computes fastest."""

    compile_tower: bool = Field(default=False, alias="compile")
    """Compile every tower with torch.compile, at static shapes; on a GPU with CUDA graphs."""

    batch_size: int | None = Field(default=None, ge=1)
    """Images per forward pass; 32 on CPU, 256 on GPU unless given."""

    rounds: int = Field(default=7, ge=1)
    """Rounds that count; each runs every condition, a first one is thrown away."""

    batches: int = Field(default=2, ge=1)
    """Forward passes of a condition in a round."""

    json_path: Path | None = Field(default=None, alias="json")
    """Write the results to this file."""


class DemoSettings(Settings):
    """Run the main job on an embedded collection and model: embed, index, search, measure. No network."""

    out: Path = Path("clipsieve-demo")
    """Folder for the collection, the stores and the contact sheet."""

    json_path: Path | None = Field(default=None, alias="json")
    """Write the results to this file."""

    num_images: int = Field(default=1000, ge=20)
    """Images to draw."""

    keep_ratio: float | None = Field(default=None, gt=0.0, le=1.0)
    """Share of patch tokens kept, in (0, 1]; 0.7 unless given."""

    ray_address: str | None = None
    """Ray cluster to join; else Ray starts on this machine."""


class DoctorSettings(Settings):
    """Show versions, hardware, and what will run where."""

    as_json: bool = Field(default=False, alias="json")
    """Print JSON instead of a table."""

    model: str = "scenes"
    """Model whose loading is tried."""

    images: Path | None = None
    """Folder of photographs to compare our preprocessing with open_clip's on; a few are generated unless given."""
