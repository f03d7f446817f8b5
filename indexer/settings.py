"""Settings of `clipsieve index`."""

from pathlib import Path
from typing import ClassVar

from pydantic_settings import CliPositionalArg

from pipeline.settings.load import OutputSettings


class IndexSettings(OutputSettings):
    """Build an exact inner-product index over the embeddings of a store."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"what": ("store",), "safety": ("partial",)}

    store: CliPositionalArg[Path]
    """Store written by `clipsieve embed`."""

    partial: bool = False
    """Index the committed shards even if others are missing."""
