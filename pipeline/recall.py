"""Recall and its uncertainty. numpy only.

recall@k here is what CLIP papers report: the share of queries with at least one right item among the first k.
Shapes: Q queries, N gallery items, E embedding width. A gallery item is right for a query if their labels are equal.
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
    """Position of each query's best right item, by inner product; 0 is the first place.

    A wrong item that ties with the right one is placed before it, so that equal embeddings earn nothing. Works in
    chunks of queries: memory is O(chunk * N).

    Returns:
        int64 [Q]; N for a query that has no right item.
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
    """Share of queries whose first hit is among the first k, a fraction."""
    return float((ranks_Q < k).mean())


def paired_difference(
    hits_Q: np.ndarray,
    baseline_Q: np.ndarray,
    clusters_Q: np.ndarray,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """Difference of two conditions' recall on the same queries, with a bootstrap 95 % interval.

    Whole clusters are drawn: the captions of one image are not independent.

    Args:
        hits_Q: Whether each query was answered, in the condition.
        baseline_Q: The same in the baseline.
        clusters_Q: Image each query belongs to.
        num_resamples: Bootstrap samples.
        seed: Of the resampling.

    Returns:
        `(difference, (low, high))`, fractions; positive means the condition is better.
    """
    difference_Q = hits_Q.astype(np.float64) - baseline_Q.astype(np.float64)
    _, cluster_Q = np.unique(clusters_Q, return_inverse=True)
    sums = np.bincount(cluster_Q, weights=difference_Q)
    sizes = np.bincount(cluster_Q).astype(np.float64)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=num_resamples)
    samples = (draws @ sums) / (draws @ sizes)
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(difference_Q.mean()), (float(low), float(high))


def recall_metrics(ranks_by_task: dict[str, np.ndarray], ks: Sequence[int] = KS) -> dict[str, float]:
    """Name metrics as CLIP_benchmark does: `<task>_recall@<k>`, task `image_retrieval` or `text_retrieval`."""
    return {f"{task}_recall@{k}": recall_at(ranks, k) for task, ranks in ranks_by_task.items() for k in ks}
