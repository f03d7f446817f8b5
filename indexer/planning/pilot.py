"""What recall costs on a sample of the vectors: the share of the rows to scan, and the candidates to score again.

Both are measured apart on at most 100,000 rows: lists as if every row in them were compared exactly, and each code as
if every list were scanned. The product of the two recalls is close to the recall of the index.

Shapes: n rows of the sample, E embedding width, Q queries, L lists.
"""

import time
from collections.abc import Sequence

import faiss
import numpy as np

from indexer.planning.curves import TYPICAL, Curve, Pilot
from indexer.planning.sizes import CODES, Shape

MAX_ROWS = 100_000
MAX_S = 60.0
K = 10
_MIN_ROWS = 1_000

RECALLS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
_EFFORTS = (16, 32, 64, 128, 256, 512)
_GRAPH_ROWS = 10_000
_MOST_CANDIDATES = 1_000
_CODE_LISTS = 64
_TRAINED = 4_096


def measure_pilot(vectors_nE: np.ndarray, queries_QE: np.ndarray, seed: int = 1, max_s: float = MAX_S) -> Pilot:
    """Measure the curves. What there is no time for, or too few rows, is taken from `TYPICAL`.

    Args:
        vectors_nE: A sample of the rows to index (float32, unit), at most `MAX_ROWS` of them are used.
        queries_QE: Queries as they will come (float32, unit); some hundreds are enough.
        seed: Of the k-means.
        max_s: Seconds after which nothing more is begun.
    """
    if len(vectors_nE) < _MIN_ROWS:
        return TYPICAL
    deadline = time.perf_counter() + max_s
    vectors_nE = np.ascontiguousarray(vectors_nE[:MAX_ROWS], np.float32)
    queries_QE = np.ascontiguousarray(queries_QE, np.float32)
    exact = faiss.IndexFlatIP(vectors_nE.shape[1])
    exact.add(vectors_nE)
    true_QK = exact.search(queries_QE, K)[1]
    num_lists = min(int(3 * len(vectors_nE) ** 0.5), len(vectors_nE) // 32)
    lists = _lists_curve(vectors_nE, queries_QE, true_QK, num_lists, seed)
    codes = {"fp32": ((float(K), 1.0),), "fp16": ((float(K), 1.0),)}
    for name in ("PQ4", "SQ8", "RaBitQ2", "RaBitQ4"):
        if CODES[name].takes(vectors_nE.shape[1]) and time.perf_counter() < deadline:
            codes[name] = _code_curve(name, vectors_nE, queries_QE, true_QK)
    graph = ()
    if time.perf_counter() < deadline - max_s / 3:  # building one takes a while
        graph = _graph_curve(vectors_nE[:_GRAPH_ROWS], queries_QE)
    return Pilot(
        num_rows=len(vectors_nE),
        num_lists=num_lists,
        lists=lists,
        codes={**TYPICAL.codes, **codes},
        graph_rows=min(len(vectors_nE), _GRAPH_ROWS) if graph else TYPICAL.graph_rows,
        graph=graph or TYPICAL.graph,
    )


def _lists_curve(
    vectors_nE: np.ndarray, queries_QE: np.ndarray, true_QK: np.ndarray, num_lists: int, seed: int
) -> Curve:
    sample = vectors_nE[:: max(1, len(vectors_nE) // (48 * num_lists))]
    kmeans = faiss.Kmeans(vectors_nE.shape[1], num_lists, niter=6, spherical=True, seed=seed, min_points_per_centroid=1)
    kmeans.train(sample)
    lists_n = kmeans.index.search(vectors_nE, 1)[1].ravel()
    order_QL = kmeans.index.search(queries_QE, num_lists)[1]
    rank_QL = np.empty_like(order_QL)
    np.put_along_axis(rank_QL, order_QL, np.arange(num_lists)[None], axis=1)
    needed = np.take_along_axis(rank_QL, lists_n[true_QK], axis=1).ravel()
    sizes_L = np.bincount(lists_n, minlength=num_lists)
    shares_L = sizes_L[order_QL].cumsum(axis=1).mean(axis=0) / len(vectors_nE)
    return _ascending(
        (float(shares_L[int(np.quantile(needed, recall, method="higher"))]), recall) for recall in RECALLS
    )


def _code_curve(name: str, vectors_nE: np.ndarray, queries_QE: np.ndarray, true_QK: np.ndarray) -> Curve:
    dim = vectors_nE.shape[1]
    factory = Shape(name, _CODE_LISTS).factory(dim)
    index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    inner = faiss.extract_index_ivf(index)
    inner.cp.niter, inner.cp.min_points_per_centroid, inner.nprobe = 3, 1, _CODE_LISTS
    index.train(vectors_nE[:_TRAINED])
    index.add(vectors_nE)
    found_QC = index.search(queries_QE, _MOST_CANDIDATES)[1]
    places = _places(found_QC, true_QK)
    return _ascending(
        (float(max(K, place + 1)), recall)
        for recall in RECALLS
        if (place := int(np.quantile(places, recall, method="higher"))) < found_QC.shape[1]
    )


def _places(found_QC: np.ndarray, true_QK: np.ndarray) -> np.ndarray:
    """The place of each true row among those found (int [Q * K]), the number of those found if it is not there."""
    places = []
    for found, true in zip(found_QC, true_QK, strict=True):
        order = np.argsort(found, kind="stable")
        spots = np.minimum(np.searchsorted(found[order], true), len(found) - 1)
        places.append(np.where(found[order][spots] == true, order[spots], len(found)))
    return np.concatenate(places)


def _graph_curve(vectors_nE: np.ndarray, queries_QE: np.ndarray) -> Curve:
    dim = vectors_nE.shape[1]
    exact = faiss.IndexFlatIP(dim)
    exact.add(vectors_nE)
    true_QK = exact.search(queries_QE, K)[1]
    index = faiss.index_factory(dim, Shape("fp16", is_graph=True).factory(dim), faiss.METRIC_INNER_PRODUCT)
    index.train(vectors_nE[:1_000])
    index.add(vectors_nE)
    recalls = []
    for effort in _EFFORTS:
        parameters = faiss.SearchParametersHNSW(efSearch=effort)
        found_QK = index.search(queries_QE, true_QK.shape[1], params=parameters)[1]
        recalls.append(float((_places(found_QK, true_QK) < found_QK.shape[1]).mean()))
    return _ascending(zip(map(float, _EFFORTS), recalls, strict=True))


def _ascending(pairs: Sequence[tuple[float, float]]) -> Curve:
    """The pairs with less cost or more recall than those before, the dearest of equal cost last."""
    found: list[tuple[float, float]] = []
    for cost, recall in pairs:
        if found and cost <= found[-1][0]:
            found[-1] = (found[-1][0], max(recall, found[-1][1]))
        elif not found or recall > found[-1][1]:
            found.append((cost, recall))
    return tuple(found)
