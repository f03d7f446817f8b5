"""Settings of the verbs that maintain a store: `verify`, `delete` and `compact`."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg

from pipeline.model.spec import DeviceChoice
from pipeline.settings.load import OutputSettings


class VerifySettings(OutputSettings):
    """Prove that a store is whole: every planned image has its row, and no byte has changed since it was written."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("store",),
        "how fast": ("device",),
        "safety": ("resample", "seed"),
    }

    store: CliPositionalArg[Path]
    """Store written by `clipsieve embed` or `clipsieve import`."""

    resample: int = Field(default=0, ge=0)
    """Number of random rows to embed again from their sources and compare with the stored ones. Loads the model."""

    seed: int = Field(default=1, ge=0)
    """Seed of the random sample of --resample."""

    device: DeviceChoice = "auto"
    """Where --resample embeds. auto uses a GPU if there is one. The store determines the precision."""


class DeleteSettings(OutputSettings):
    """Delete images from a store, so that search no longer finds them: by key, for good, or because they are gone."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"what": ("store", "keys", "missing"), "safety": ("yes",)}

    store: CliPositionalArg[Path]
    """Store written by `clipsieve embed` or `clipsieve import`."""

    keys: Path | None = None
    """UTF-8 file of keys, one per line. If a tar or Parquet file is embedded again as a whole, delete its images
    again."""

    missing: bool = False
    """Delete the images that are gone from their sources. Lists every source of the store."""

    yes: bool = False
    """Also if more than 10 % of the images of a source are gone."""

    @model_validator(mode="after")
    def _check(self) -> "DeleteSettings":
        if (self.keys is not None) == self.missing:
            raise ValueError("give either --keys FILE or --missing, to say which images to delete")
        return self


class CompactSettings(OutputSettings):
    """Remove deleted and replaced rows from the parts of a store. Ids do not change."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"what": ("store",)}

    store: CliPositionalArg[Path]
    """Finished store."""
