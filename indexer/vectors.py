"""The vectors of a store, part by part, checked against the commit markers and without deleted rows."""

import json
from collections.abc import Iterator

import numpy as np

from pipeline.errors import StoreError
from pipeline.store.parts import METADATA_KEY, embeddings_of, read_part_checked
from pipeline.store.view import StoreView


def live_vectors(view: StoreView) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ids (int64 [n]) and unit vectors (float32 [n, E]) of each part, in id order.

    Raises:
        StoreError: If a part is damaged or from another encoder.
    """
    for _, marker in sorted(view.committed.items()):
        path = view.store.part_of(marker)
        table = read_part_checked(path, marker.sha256, ["id", "status", "embedding"])
        fingerprint = json.loads(table.schema.metadata[METADATA_KEY])["fingerprint"]
        if fingerprint != view.record.fingerprint:
            raise StoreError(
                f"{path} is from encoder {fingerprint}, but the store is from {view.record.fingerprint}; delete the "
                "part and its commit marker, then run the same embed command again"
            )
        ids, embeddings = embeddings_of(table)
        is_live = ~np.isin(ids, view.deleted)
        yield ids[is_live], embeddings[is_live]
