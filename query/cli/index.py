"""`clipsieve index`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer.settings import IndexSettings

SUMMARY = "build a FAISS index over a store"
EXAMPLES = "  clipsieve index store"
SETTINGS = "indexer.settings:IndexSettings"


def run(settings: "IndexSettings") -> None:
    """Build the index and report its size."""
    from indexer.build import build_index
    from query.cli.console import show

    manifest = build_index(settings)
    results = {"store": str(settings.store), **manifest.model_dump(mode="json", exclude={"parts"})}
    size = f"{manifest.embedding_dim} dimensions, {manifest.num_bytes / 1e6:.1f} MB"
    show(settings, results, lambda: print(f"{manifest.num_vectors} vectors indexed, {size}"))
