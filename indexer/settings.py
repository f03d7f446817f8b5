"""Settings of `clipsieve index`."""

from pathlib import Path

from pydantic_settings import CliPositionalArg

from pipeline.settings.load import Settings


class IndexSettings(Settings):
    """Build an exact inner-product index over the embeddings of a store."""

    store: CliPositionalArg[Path]
    """A store written by `clipsieve embed`."""

    partial: bool = False
    """Index the committed shards even if others are missing."""
