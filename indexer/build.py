"""`clipsieve index`: everything from committed parts to an index and its manifest."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from indexer.files import faiss_version, save_index
from indexer.manifest import MANIFEST_FILE, IndexManifest, index_path
from indexer.recipes.flat import flat_index
from indexer.settings import IndexSettings
from indexer.vectors import live_vectors
from pipeline.durable.atomic import write_atomically, write_json
from pipeline.durable.outputs import refuse_unwritable_folder
from pipeline.durable.seal import sha256_of
from pipeline.errors import StoreError
from pipeline.store.view import StoreView


def build_index(
    settings: IndexSettings, on_progress: Callable[[int, int], None] = lambda num_done, num_total: None
) -> IndexManifest:
    """Build an exact inner-product index over a store. Vectors have their rows' `id`; deleted rows are left out.

    Args:
        settings: Which store to index.
        on_progress: Called after each part with the number of rows done and their total.

    Raises:
        UnfinishedStore: If shards are missing and `partial` is not set.
        StoreError: If a part is damaged or from another encoder, or the index cannot be written.
    """
    view = StoreView.open(settings.store, settings.partial)
    folder, path = view.store.index_dir, index_path(view.store)
    refuse_unwritable_folder(folder, "the index", "make the store writable, or index a copy of it")
    index = flat_index(view.record.encoder.embedding_dim, _counted(view, on_progress))
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}; fix its permissions") from error

    def write(temporary: Path) -> None:
        save_index(index, temporary)
        # not earlier, so that a failed write keeps the old pair; not later, so that a manifest never has another index
        (folder / MANIFEST_FILE).unlink(missing_ok=True)

    write_atomically(path, write)
    manifest = IndexManifest(
        index_type="Flat",
        metric="inner_product",
        embedding_dim=view.record.encoder.embedding_dim,
        num_vectors=index.ntotal,
        fingerprint=view.record.fingerprint,
        text_space=view.record.text_space,
        image_policy=view.record.image_space,
        parts={ordinal: marker.sha256 for ordinal, marker in view.committed.items()},
        sha256=sha256_of(path),
        num_bytes=path.stat().st_size,
        faiss_version=faiss_version(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(folder / MANIFEST_FILE, manifest.model_dump(mode="json"))
    return manifest


def _counted(view: StoreView, on_progress: Callable[[int, int], None]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The vectors of each part, with a report of progress after it."""
    num_done, num_total = 0, sum(marker.num_ok for marker in view.committed.values())
    for (_, marker), part in zip(sorted(view.committed.items()), live_vectors(view), strict=True):
        yield part
        num_done += marker.num_ok
        on_progress(num_done, num_total)
