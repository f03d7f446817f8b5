"""Indexes of schema version 1: one exact FAISS index over ids, `image.index`, and a manifest without a seal.

Shapes: Q queries, N vectors, E embedding width, K results.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from pipeline.errors import StoreError
from pipeline.store.view import StoreView

INDEX_FILE = "image.index"


class EarlierSearcher:
    """An index of schema version 1 in memory. It answers as a `IndexSearcher` does."""

    device = "cpu"
    warning = None

    def __init__(self, path: Path, view: StoreView) -> None:
        """Read the index.

        Raises:
            StoreError: If the file is missing or damaged.
        """
        try:
            self._index = faiss.read_index(str(path))
            ids = faiss.vector_to_array(self._index.id_map)
        except (RuntimeError, AttributeError) as error:
            raise StoreError(f"cannot read the index {path}; rebuild it with `clipsieve index`") from error
        self._view, self._live = view, np.setdiff1d(ids, view.deleted)

    @property
    def num_rows(self) -> int:
        """Rows that can be found."""
        return len(self._live)

    def search(
        self, queries_QE: np.ndarray, k: int, allowed_ids: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores (float32 [Q, K], larger is better) and ids (int64 [Q, K]), K = min(k, rows that can be found)."""
        found = self._live if allowed_ids is None else np.intersect1d(self._live, allowed_ids)
        k = min(k, len(found))
        if k == 0:
            return np.empty((len(queries_QE), 0), np.float32), np.empty((len(queries_QE), 0), np.int64)
        selector = faiss.IDSelectorBatch(found)
        parameters = faiss.SearchParameters(sel=selector) if len(found) < self._index.ntotal else None
        return self._index.search(np.ascontiguousarray(queries_QE, np.float32), k, params=parameters)

    def metadata(self, ids: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """The metadata of rows, in the order of `ids` (int64 [n], all in the index)."""
        found = self._view.rows(ids, columns)
        return pa.table({name: [found[int(i)][name] for i in ids] for name in columns})


def refuse_damaged(path: Path, manifest: dict[str, Any]) -> None:
    """Check the size of the index file.

    Raises:
        StoreError: If it is not what the manifest says.
    """
    num_bytes = path.stat().st_size if path.exists() else 0
    if num_bytes != manifest["num_bytes"]:
        raise StoreError(
            f"{path} has {num_bytes} bytes, its manifest says {manifest['num_bytes']}; rebuild it with "
            "`clipsieve index`"
        )
