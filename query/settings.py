"""Settings of `search`, `evaluate`, `demo` and `doctor`."""

from pathlib import Path

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg

from pipeline.policy import UNPRUNED, PruningPolicy, choose_policy
from pipeline.settings import EncoderSettings, Settings


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


class EvaluateSettings(EncoderSettings):
    """Measure recall and speed of the pruned model against the unpruned one, on your own images and captions."""

    policy: str | None = None
    """Pruning policies, separated by commas, one condition each; `none` comes first in any case."""

    images: Path
    """Folder of images; every one of them is in the gallery."""

    captions: Path
    """TSV of `key TAB caption`; several captions an image are allowed."""

    json_path: Path | None = Field(default=None, alias="json")
    """Write the results to this file."""

    out: Path | None = None
    """Keep the two stores in this folder, instead of a temporary one."""

    bench_images: int = Field(default=128, ge=1)
    """Images on which the bare image tower is timed."""

    @model_validator(mode="after")
    def _check_policies(self) -> "EvaluateSettings":
        self.pruning_policies()
        return self

    def pruning_policies(self) -> dict[str | None, PruningPolicy]:
        """The policies to compare with the unpruned tower, by what `--policy` calls them (None: the default)."""
        asked = [name.strip() for name in self.policy.split(",")] if self.policy else [None]
        policies = {name: choose_policy(name, self.keep_ratio) for name in asked if name != UNPRUNED}
        names = [policy.name for policy in policies.values()]
        if len(set(names)) < len(names):
            raise ValueError(f"policy = {self.policy!r}: two policies of one name, {', '.join(names)}; rename one")
        return policies


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
