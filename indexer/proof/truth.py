"""Exact search over all vectors: the truth that an index is measured against.

Shapes: Q queries, N rows, E embedding width, K results.
"""

import faiss
import numpy as np

from indexer.rows.mapped import MappedRows


def exact_search(
    rows: MappedRows, queries_QE: np.ndarray, k: int, is_dead_N: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The best rows of each query by comparing all of them, chunk by chunk.

    Args:
        rows: The rows.
        queries_QE: float32.
        k: Results per query.
        is_dead_N: Rows that must not be found (bool); None if there are none.

    Returns:
        Scores (float32 [Q, K], descending) and positions (int64 [Q, K]); -inf and -1 where there are fewer rows.
    """
    queries_QE = np.ascontiguousarray(queries_QE, np.float32)
    scores = np.full((len(queries_QE), k), -np.inf, np.float32)
    positions = np.full((len(queries_QE), k), -1, np.int64)
    for start, vectors in rows.chunks():
        own = np.arange(start, start + len(vectors))
        if is_dead_N is not None:
            is_live = ~is_dead_N[start : start + len(vectors)]
            own, vectors = own[is_live], vectors[is_live]
        if not len(own):
            continue
        vectors = np.ascontiguousarray(vectors)
        found, places = faiss.knn(queries_QE, vectors, min(k, len(own)), faiss.METRIC_INNER_PRODUCT)
        scores, positions = _best(np.hstack([scores, found]), np.hstack([positions, own[places]]), k)
    return scores, positions


def score_all(
    queries_QE: np.ndarray, vectors_NE: np.ndarray, positions_N: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best of some rows for every query, each compared; as `exact_search`."""
    k = min(k, len(vectors_NE))
    return _best(queries_QE @ vectors_NE.T, np.broadcast_to(positions_N, (len(queries_QE), len(positions_N))), k)


def _best(scores: np.ndarray, positions: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if scores.shape[1] > k:
        kept = np.argpartition(-scores, k - 1, axis=1)[:, :k] if k else np.empty((len(scores), 0), np.int64)
        scores, positions = np.take_along_axis(scores, kept, 1), np.take_along_axis(positions, kept, 1)
    order = np.lexsort((positions, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)
