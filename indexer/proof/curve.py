"""Measure an index at one operating point: recall against exact search, its spread over queries, latency, throughput.

Shapes: Q queries, E embedding width, K results.
"""

import time
from collections.abc import Callable

import faiss
import numpy as np
from pydantic import BaseModel, ConfigDict

from indexer.recipes.point import OperatingPoint

DEPTH = 100
"""Results per query that are compared."""
TIED = 1e-5
"""Scores that differ by less are ties: the order of their rows is an accident of rounding."""
TIMED_QUERIES = 200

Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Scores and positions of the best K rows of each query."""


class Interval(BaseModel):
    """A mean over queries and its 95 % bootstrap interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float


class Measured(BaseModel):
    """One operating point as it was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    point: OperatingPoint
    recall_at_1: Interval
    recall_at_10: Interval
    recall_at_100: Interval
    recall_at_10_p5: float
    """Its 5th percentile over queries: averages hide queries that lose everything."""
    tie_recall_at_10: float
    """A hit counts, too, if its score is that of the tenth true hit."""
    p50_ms: float | None = None
    """Of one query on one thread, warm."""
    p99_ms: float | None = None
    queries_per_second: float | None = None
    """Of all queries at once, 10 hits each, on all threads of the build."""


def recall_per_query(found_QK: np.ndarray, true_QK: np.ndarray, k: int) -> np.ndarray:
    """The share (float64 [Q]) of the `k` true rows of each query that are among its first `k` found rows."""
    k = min(k, true_QK.shape[1])
    found, true = np.sort(found_QK[:, :k], axis=1), true_QK[:, :k]
    hits = [np.isin(truth, row, assume_unique=True).sum() for truth, row in zip(true, found, strict=True)]
    return np.array(hits) / max(1, k)


def measure(
    point: OperatingPoint, search: Search, queries_QE: np.ndarray, truth: tuple[np.ndarray, np.ndarray], timed: bool
) -> Measured:
    """Search all queries, and compare with the truth.

    Args:
        point: What `search` was told.
        search: Searches at this point.
        queries_QE: float32.
        truth: Scores and positions [Q, K] by exact search.
        timed: Whether to measure latency, too.
    """
    scores_true, true_QK = truth
    ten = min(10, true_QK.shape[1])
    scores_QK, found_QK = search(queries_QE, ten)
    at = {k: recall_per_query(found_QK, true_QK, k) for k in (1, 10)}
    # apart, because a search for more hits takes more candidates, and would find more of the first ten as well
    at[DEPTH] = recall_per_query(search(queries_QE, true_QK.shape[1])[1], true_QK, DEPTH)
    tied = (scores_QK[:, :ten] >= scores_true[:, ten - 1 : ten] - TIED).mean() if scores_QK.size else 1.0
    latency = latency_ms(search, queries_QE[:TIMED_QUERIES]) if timed else None
    started = time.perf_counter()
    if timed:
        search(queries_QE, 10)
    seconds = time.perf_counter() - started
    return Measured(
        point=point,
        recall_at_1=_interval(at[1]),
        recall_at_10=_interval(at[10]),
        recall_at_100=_interval(at[DEPTH]),
        recall_at_10_p5=float(np.quantile(at[10], 0.05)),
        tie_recall_at_10=float(tied),
        p50_ms=float(np.median(latency)) if latency is not None else None,
        p99_ms=float(np.quantile(latency, 0.99)) if latency is not None else None,
        queries_per_second=len(queries_QE) / seconds if timed else None,
    )


def latency_ms(search: Search, queries_QE: np.ndarray, k: int = 10) -> np.ndarray:
    """Milliseconds [Q] of each query alone, on one thread, after a first round that is not counted."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        found = []
        for _ in range(2):
            found = []
            for row in range(len(queries_QE)):
                started = time.perf_counter()
                search(queries_QE[row : row + 1], k)
                found.append(1e3 * (time.perf_counter() - started))
        return np.array(found)
    finally:
        faiss.omp_set_num_threads(threads)


def _interval(values: np.ndarray, draws: int = 1_000) -> Interval:
    # a bootstrap of means: a multinomial count per query and draw, with a fixed seed
    generator = np.random.default_rng(0)
    means = [generator.choice(values, len(values)).mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))
