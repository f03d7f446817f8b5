"""Exact search: every query is compared with every vector. The only recipe so far.

Shapes: n vectors of a part, E embedding width.
"""

from collections.abc import Iterable

import faiss
import numpy as np


def flat_index(dim: int, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> faiss.IndexIDMap2:
    """Build an exact inner-product index from parts: `(ids int64 [n], vectors float32 [n, E])`, one at a time."""
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
    for ids, vectors in parts:
        if len(ids):
            index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)
    return index
