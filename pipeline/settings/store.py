"""Settings of the verbs that look after a store: `verify`, `delete` and `compact`."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import CliPositionalArg

from pipeline.model.spec import DeviceChoice
from pipeline.settings.load import OutputSettings


class VerifySettings(OutputSettings):
    """Prove that a store is whole: every planned image has its row, and no byte changed since it was written."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("store",),
        "how fast": ("device",),
        "safety": ("resample", "seed"),
    }

    store: CliPositionalArg[Path]
    """Store written by `clipsieve embed`."""

    resample: int = Field(default=0, ge=0)
    """Number of rows to embed again from their sources, to compare with what is stored. Loads the model."""

    seed: int = Field(default=1, ge=0)
    """Seed of the random sample that --resample takes."""

    device: DeviceChoice = "auto"
    """Where --resample embeds. auto takes a GPU if there is one; the store fixes the precision."""


class DeleteSettings(OutputSettings):
    """Delete images from a store by their keys: no search finds them any more, and no embed brings them back."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"what": ("store", "keys")}

    store: CliPositionalArg[Path]
    """Store written by `clipsieve embed`."""

    keys: Path
    """UTF-8 file of keys, one per line."""


class CompactSettings(OutputSettings):
    """Take the rows that were deleted or replaced out of the parts of a store; ids stay as they are."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"what": ("store",)}

    store: CliPositionalArg[Path]
    """Finished store."""
