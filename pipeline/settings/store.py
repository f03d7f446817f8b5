"""Settings of the verbs that look after a store: `verify`, `delete` and `compact`."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from pipeline.model.spec import DeviceChoice
from pipeline.settings.load import Settings


class VerifySettings(Settings):
    """Prove that a store is whole: every planned image has its row, and no byte changed since it was written."""

    store: CliPositionalArg[Path]
    """A store written by `clipsieve embed`."""

    resample: int = Field(default=0, ge=0)
    """Rows to embed again from their sources, to compare with what is stored; loads the model."""

    seed: int = Field(default=1, ge=0)
    """Decides which rows these are."""

    device: DeviceChoice = "auto"
    """Where to embed them; auto takes a GPU where there is one."""

    as_json: bool = Field(default=False, alias="json")
    """Print JSON instead of a summary."""


class DeleteSettings(Settings):
    """Delete images from a store by their keys: no search finds them any more, and no embed brings them back."""

    store: CliPositionalArg[Path]
    """A store written by `clipsieve embed`."""

    keys: Path
    """UTF-8 file of keys, one a line."""


class CompactSettings(Settings):
    """Take the rows that were deleted or replaced out of the parts of a store; ids stay as they are."""

    store: CliPositionalArg[Path]
    """A finished store."""
