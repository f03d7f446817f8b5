"""Recall, by rank and by metric names. Imports only numpy.

recall@k is defined as in CLIP papers: the share of queries with at least one correct item among the first k.
Shapes: Q queries, N gallery items, E embedding width. A gallery item is correct for a query if their labels are equal.
"""

from collections.abc import Sequence

import numpy as np

KS = (1, 5, 10)


def first_hit_ranks(
    queries_QE: np.ndarray,
    query_labels_Q: np.ndarray,
    gallery_NE: np.ndarray,
    gallery_labels_N: np.ndarray,
    chunk: int = 1024,
) -> np.ndarray:
    """Rank of each query's best correct item, by inner product; 0 is first.

    In a tie, wrong items rank before the correct one, so that identical embeddings gain nothing. Works in chunks of
    queries: memory is O(chunk * N).

    Returns:
        int64 [Q]; N for a query without a correct item.
    """
    ranks = np.empty(len(queries_QE), dtype=np.int64)
    for start in range(0, len(queries_QE), chunk):
        rows = slice(start, start + chunk)
        scores = queries_QE[rows].astype(np.float32) @ gallery_NE.astype(np.float32).T
        right = query_labels_Q[rows, None] == gallery_labels_N[None, :]
        best = np.where(right, scores, -np.inf).max(axis=1)
        better = ((scores >= best[:, None]) & ~right).sum(axis=1)
        ranks[rows] = np.where(right.any(axis=1), better, len(gallery_NE))
    return ranks


def recall_at(ranks_Q: np.ndarray, k: int) -> float:
    """Fraction of queries whose first hit is among the first k."""
    return float((ranks_Q < k).mean())


def neighbour_overlap(images_NE: np.ndarray, others_NE: np.ndarray, k: int) -> float:
    """Mean share of an image's `k` nearest other images (all, if fewer) that two sets of embeddings agree on."""
    nearest, k = [], min(k, len(images_NE) - 1)
    for vectors_NE in (images_NE, others_NE):
        scores = vectors_NE @ vectors_NE.T
        np.fill_diagonal(scores, -np.inf)
        nearest.append(np.argpartition(-scores, k - 1, axis=1)[:, :k])
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*map(np.ndarray.tolist, nearest), strict=True)]))


def recall_metrics(ranks_by_task: dict[str, np.ndarray], ks: Sequence[int] = KS) -> dict[str, float]:
    """Recall under CLIP_benchmark's names: `<task>_recall@<k>`, task `image_retrieval` or `text_retrieval`."""
    return {f"{task}_recall@{k}": recall_at(ranks, k) for task, ranks in ranks_by_task.items() for k in ks}


def recall_sum(metrics: dict[str, float]) -> float:
    """Text->image R@1 + R@5 + R@10, a fraction of 3, from metrics as `recall_metrics` names them."""
    return sum(metrics[f"image_retrieval_recall@{k}"] for k in KS)
