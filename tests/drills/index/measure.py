"""Common ground of the index drills: the vectors, recall against exact search, and interleaved timing.

Shapes: Q queries, N vectors, E embedding width, K results.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq

SHARED = Path(os.environ.get("CLIPSIEVE_SHARED", Path(__file__).resolve().parents[4] / "shared"))
K = 10
BLOCK = 100
"""Queries of a block: one condition answers them all, then the next condition does."""

Search = Callable[[np.ndarray], np.ndarray]
"""Answers queries [Q, E] with ids [Q, K]."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to search, and where it stands."""

    name: str
    search: Search
    detail: dict[str, object]


def embeddings_of(path: Path) -> np.ndarray:
    """The column `embedding` of a Parquet file as float32 [N, E]."""
    column = pq.read_table(path, columns=["embedding"]).column("embedding").combine_chunks()
    return column.values.to_numpy().reshape(len(column), -1).astype(np.float32)


def real_vectors(num_tuning: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shared vectors: images [N, E], and texts, shuffled and split into those to tune with and the others."""
    images_NE = embeddings_of(SHARED / "data/vectors/images.parquet")
    texts_QE = embeddings_of(SHARED / "data/vectors/text_queries.parquet")
    texts_QE = texts_QE[np.random.default_rng(seed).permutation(len(texts_QE))]
    return images_NE, texts_QE[:num_tuning], texts_QE[num_tuning:]


def exact(images_NE: np.ndarray, queries_QE: np.ndarray, k: int = K) -> np.ndarray:
    """Ids of the K vectors with the largest inner products, by exact search in float32."""
    return faiss.knn(queries_QE, images_NE, k, metric=faiss.METRIC_INNER_PRODUCT)[1]


def recalls(found_QK: np.ndarray, truth_QK: np.ndarray) -> np.ndarray:
    """Share of the true K that each query found."""
    return np.array([len(np.intersect1d(a, b)) for a, b in zip(found_QK, truth_QK, strict=True)]) / truth_QK.shape[1]


def summary(per_query: np.ndarray) -> dict[str, float]:
    """Mean recall, and the 5th percentile over queries."""
    return {"recall": float(per_query.mean()), "p5": float(np.percentile(per_query, 5, method="lower"))}


def least(reaches: Callable[[int], bool], low: int, high: int) -> int | None:
    """The least number in [low, high] for which a monotone test holds; None if it does not hold for `high`."""
    if not reaches(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle + 1, high)
    return high


def interleaved(
    conditions: Sequence[Condition], queries_QE: np.ndarray, seed: int = 0, block: int = BLOCK
) -> dict[str, dict[str, float]]:
    """Time one query at a time, on one thread, in warm blocks whose conditions take turns in random order.

    Every condition answers a block twice in a row, and only the second time counts, so that its own data is in the
    caches as far as they hold it.

    Returns:
        By condition: median over blocks of the mean ms of a query, the same in CPU time (which other processes on the
        machine disturb less), and the median and 99th percentile of one query.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    order = np.random.default_rng(seed)
    times: dict[str, list[list[float]]] = {condition.name: [] for condition in conditions}
    cpu: dict[str, list[float]] = {condition.name: [] for condition in conditions}
    for first in range(0, len(queries_QE) - block + 1, block):
        batch = [queries_QE[row : row + 1].copy() for row in range(first, first + block)]
        for number in order.permutation(len(conditions)):
            search = conditions[number].search
            for query in batch:
                search(query)
            seconds, begun = [], time.thread_time()
            for query in batch:
                started = time.perf_counter()
                search(query)
                seconds.append(time.perf_counter() - started)
            times[conditions[number].name].append(seconds)
            cpu[conditions[number].name].append((time.thread_time() - begun) / block)
    faiss.omp_set_num_threads(threads)
    return {
        name: {
            "ms": 1000 * statistics.median(statistics.fmean(block) for block in blocks),
            "cpu_ms": 1000 * statistics.median(cpu[name]),
            "p50_ms": 1000 * float(np.percentile(blocks, 50)),
            "p99_ms": 1000 * float(np.percentile(blocks, 99)),
        }
        for name, blocks in times.items()
    }
