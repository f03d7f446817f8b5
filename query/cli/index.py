"""`clipsieve index`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer.settings import IndexSettings

SUMMARY = "build a FAISS index over a store"
EXAMPLES = "  clipsieve index store"
SETTINGS = "indexer.settings:IndexSettings"


def run(settings: "IndexSettings") -> None:
    """Build the index and report its size."""
    import time

    from indexer.build import build_index
    from pipeline.monitor.progress import Tick
    from query.cli.console import Lines, show

    started = time.perf_counter()
    with Lines("index") as lines:
        manifest = build_index(
            settings,
            lambda num_done, num_total: lines(
                "index", Tick(num_done, num_total, 0, num_done / (time.perf_counter() - started))
            ),
        )
    results = {"store": str(settings.store), **manifest.model_dump(mode="json", exclude={"parts"})}
    size = f"{manifest.embedding_dim} dimensions, {manifest.num_bytes / 1e6:.1f} MB"
    show(settings, results, lambda: print(f"{manifest.num_vectors} vectors indexed, {size}"))
