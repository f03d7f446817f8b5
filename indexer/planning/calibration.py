"""How fast this machine is at the steps of building and searching: measured in seconds, then cached.

Shapes: N rows, E embedding width, L lists, K candidates.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.planning.sizes import CODES, Code, Shape
from indexer.planning.speeds import Calibration, ScanSpeed, SearchSpeed
from indexer.recipes.recipe import in_final_form, parse_recipe, scan_list_by_list
from pipeline.durable.measured import read_measured, remember
from pipeline.machine import cpu_name

_FILE = "index-speed.json"
_METHOD = 3
"""What was measured in another way is not compared."""
_LISTS, _SMALL, _LARGE = 128, 32, 224
"""Half of the lists of a sample index are small, half are large, so that a list's own cost shows."""
_GRAPH_ROWS = 3_000
_CENTROIDS = (1_024, 4_096)
_ASSIGNED = 2_048
_CACHE_BYTES = 16 << 20
_FEW, _MANY = 10, 200
_EFFORTS = (32, 256)


def calibrate(dim: int, folder: Path) -> Calibration:
    """The speeds of this machine, from the cache or measured, which takes up to ten seconds.

    Args:
        dim: Width of the vectors.
        folder: Where a file is written to measure the disk, if it can be written; nothing is left there.
    """
    simd = faiss.SIMDConfig.get_level_name()
    key = f"{cpu_name()}, {simd}; {dim} wide; method {_METHOD}, faiss {faiss.__version__}"
    found = read_measured(_FILE, Calibration).get(key)
    if found is None:
        found = _measure(dim, folder)
        remember(_FILE, key, found)
    return found


def _measure(dim: int, folder: Path) -> Calibration:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    num_rows, rank = _LISTS // 2 * (_SMALL + _LARGE), max(2, dim // 8)  # embeddings are of low rank, nearly
    vectors_NE = rng.standard_normal((num_rows, rank)) @ rng.standard_normal((rank, dim))
    vectors_NE = (vectors_NE + rng.standard_normal(vectors_NE.shape)).astype(np.float32)
    vectors_NE /= np.linalg.norm(vectors_NE, axis=1, keepdims=True)
    try:
        built = {name: _lists(code, vectors_NE) for name, code in CODES.items() if code.takes(dim)}
        graph, graph_add_us = _graph(vectors_NE)
        rescore_call_us, rescore_us = _rescoring(vectors_NE)
        read_mb_s, write_mb_s = _disk(vectors_NE, folder)
        return Calibration(
            assign_gmacs=_assign_gmacs(vectors_NE),
            cached=_search_speed(built, graph, vectors_NE, 0),
            uncached=_search_speed(built, graph, vectors_NE, _CACHE_BYTES),
            encode_us={name: encode_us for name, (_, encode_us) in built.items()},
            flat_row_ns={name: _flat_row_ns(name, vectors_NE) for name in ("fp32", "fp16")},
            pq_train_s=_pq_train_s(vectors_NE),
            graph_add_us=graph_add_us,
            graph_rows=_GRAPH_ROWS,
            rescore_call_us=rescore_call_us,
            rescore_us=rescore_us,
            read_mb_s=read_mb_s,
            write_mb_s=write_mb_s,
        )
    finally:
        faiss.omp_set_num_threads(before)


def _search_speed(
    built: dict[str, tuple[faiss.IndexIVF, float]], graph: faiss.Index, vectors_NE: np.ndarray, cache_bytes: int
) -> SearchSpeed:
    coarse_call_us, coarse_gmacs = _coarse(vectors_NE, cache_bytes)
    return SearchSpeed(
        coarse_call_us=coarse_call_us,
        coarse_gmacs=coarse_gmacs,
        scan={name: _scan(index, vectors_NE, cache_bytes) for name, (index, _) in built.items()},
        graph_us=_graph_us(graph, vectors_NE, cache_bytes),
    )


def _seconds(call: Callable[[], object], repeats: int = 9, cache_bytes: int = 0) -> float:
    """CPU seconds of one call on this thread, the least of several: other load only adds.

    Args:
        call: What to time.
        repeats: How often, after a call to warm up if it is more than once.
        cache_bytes: Other memory to use before each call, as other queries do if the index is large.
    """
    if repeats > 1:
        call()
    elapsed, others = [], np.zeros(cache_bytes, np.uint8)
    for _ in range(repeats):
        others += 1
        started = time.thread_time()
        call()
        elapsed.append(time.thread_time() - started)
    return min(elapsed)


def _line(x: tuple[float, float], y: tuple[float, float]) -> tuple[float, float]:
    """Value at 0 and slope of the line through two points; noise makes neither negative."""
    slope = max(0.0, (y[1] - y[0]) / (x[1] - x[0]))
    return max(0.0, y[0] - slope * x[0]), slope


def _assign_gmacs(vectors_NE: np.ndarray) -> float:
    rows_NE, dim = vectors_NE[:_ASSIGNED], vectors_NE.shape[1]
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(vectors_NE[: _CENTROIDS[1]])
    return len(rows_NE) * _CENTROIDS[1] * dim / _seconds(lambda: quantizer.search(rows_NE, 1), 3) / 1e9


def _coarse(vectors_NE: np.ndarray, cache_bytes: int) -> tuple[float, float]:
    """Fixed time in us, and billions of multiply-adds a second."""
    seconds = []
    for num in _CENTROIDS:
        quantizer = faiss.IndexFlatIP(vectors_NE.shape[1])
        quantizer.add(vectors_NE[:num])
        seconds.append(_seconds(lambda index=quantizer: index.search(vectors_NE[-1:], 64), cache_bytes=cache_bytes))
    fixed, slope = _line(_CENTROIDS, (seconds[0], seconds[1]))
    return 1e6 * fixed, vectors_NE.shape[1] / max(slope, 1e-12) / 1e9


def _flat_row_ns(name: str, vectors_NE: np.ndarray) -> float:
    num, dim = vectors_NE.shape
    index = faiss.index_factory(dim, CODES[name].suffix, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors_NE[:1])
    index.add(vectors_NE)
    return 1e9 * _seconds(lambda: index.search(vectors_NE[-1:], _FEW)) / num


def _pq_train_s(vectors_NE: np.ndarray) -> float:
    """FAISS trains the codewords of each pair of dimensions on at most 4,096 rows."""
    pairs_N2 = np.ascontiguousarray(vectors_NE[:4_096, :2])
    quantizer = faiss.ProductQuantizer(2, 1, 4)
    return _seconds(lambda: quantizer.train(pairs_N2), 1)


def _scan(index: faiss.IndexIVF, vectors_NE: np.ndarray, cache_bytes: int) -> ScanSpeed:
    query, half = vectors_NE[-1:], _LISTS // 2
    few, small, large = np.arange(_LISTS - half // 4, _LISTS), np.arange(half), np.arange(half, _LISTS)
    scores = (vectors_NE[:_LISTS] @ query[0]).astype(np.float32)

    def seconds(lists: np.ndarray, k: int) -> float:
        index.nprobe = len(lists)
        chosen = lists[None], scores[lists][None]
        return _seconds(lambda: index.search_preassigned(query, k, *chosen), cache_bytes=cache_bytes)

    few_s, small_s, large_s = (seconds(lists, _FEW) for lists in (few, small, large))
    row = max(0.0, (large_s - small_s) / (half * (_LARGE - _SMALL)))
    call, list_and_rows = _line((len(few), half), (few_s, large_s))
    _, candidate = _line((_FEW, _MANY), (large_s, seconds(large, _MANY)))
    return ScanSpeed(
        call_us=1e6 * call,
        list_us=1e6 * max(0.0, list_and_rows - row * _LARGE),
        row_ns=1e9 * row,
        candidate_us=1e6 * candidate,
    )


def _lists(code: Code, vectors_NE: np.ndarray) -> tuple[faiss.IndexIVF, float]:
    """An index of small and large lists, and the time to store a row in us."""
    num, dim = vectors_NE.shape
    # not rotated: what is stored does not matter here
    recipe = parse_recipe(f"IVF{_LISTS},{code.suffix.format(half=dim // 2)}", dim)
    index = faiss.index_factory(dim, recipe.building, faiss.METRIC_INNER_PRODUCT)
    index.quantizer.add(vectors_NE[:_LISTS])
    if isinstance(index, faiss.IndexIVFPQ):  # training takes long, and any codewords do here
        faiss.copy_array_to_vector(vectors_NE.ravel()[: index.pq.centroids.size()].copy(), index.pq.centroids)
        index.by_residual, index.is_trained = bool(recipe.by_residual), True
    else:
        index.cp.min_points_per_centroid = 1
        index.train(vectors_NE[:1_024])
    lists = np.repeat(np.arange(_LISTS), np.where(np.arange(_LISTS) < _LISTS // 2, _SMALL, _LARGE))
    positions = np.arange(num)
    pointers = [faiss.swig_ptr(array) for array in (vectors_NE, positions, lists)]
    encode_us = 1e6 * _seconds(lambda: index.add_core(num, *pointers), 1) / num
    converted = in_final_form(index, recipe)
    scan_list_by_list(converted)
    return converted, encode_us


def _graph(vectors_NE: np.ndarray) -> tuple[faiss.Index, float]:
    """A graph, and the time to add a row in us."""
    dim = vectors_NE.shape[1]
    index = faiss.index_factory(dim, Shape("fp16", is_graph=True).factory(dim), faiss.METRIC_INNER_PRODUCT)
    index.train(vectors_NE[:1_000])
    return index, 1e6 * _seconds(lambda: index.add(vectors_NE[:_GRAPH_ROWS]), 1) / _GRAPH_ROWS


def _graph_us(index: faiss.Index, vectors_NE: np.ndarray, cache_bytes: int) -> float:
    seconds = []
    for effort in _EFFORTS:
        parameters = faiss.SearchParametersHNSW(efSearch=effort)
        call = partial(index.search, vectors_NE[-1:], _FEW, params=parameters)
        seconds.append(_seconds(call, cache_bytes=cache_bytes))
    return 1e6 * _line(_EFFORTS, (seconds[0], seconds[1]))[1]


def _rescoring(vectors_NE: np.ndarray) -> tuple[float, float]:
    """Fixed time of scoring candidates again, and of each of them, in us: a search with it less one without it."""
    dim, query, counts = vectors_NE.shape[1], vectors_NE[-1:], (20, 400)
    exact = faiss.index_factory(dim, "SQfp16", faiss.METRIC_INNER_PRODUCT)
    exact.train(vectors_NE[:1])
    exact.add(np.tile(vectors_NE, (4, 1)))  # more than a CPU's cache holds
    rng = np.random.default_rng(1)
    candidates = faiss.IndexIDMap(faiss.IndexFlatIP(dim))  # a few rows that stand for rows all over the others
    candidates.add_with_ids(rng.permutation(vectors_NE)[: _SMALL * 64], rng.integers(0, exact.ntotal, _SMALL * 64))
    candidates.ntotal = exact.ntotal
    refined = faiss.IndexRefine(candidates, exact)

    def seconds(count: int) -> float:
        factor = faiss.IndexRefineSearchParameters(k_factor=(count + 0.5) / _FEW)
        with_scores = _seconds(lambda: refined.search(query, _FEW, params=factor), 30)
        return max(0.0, with_scores - _seconds(lambda: candidates.search(query, count), 30))

    fixed, slope = _line(counts, (seconds(counts[0]), seconds(counts[1])))
    return 1e6 * fixed, 1e6 * slope


def _disk(vectors_NE: np.ndarray, folder: Path) -> tuple[float, float]:
    """Megabytes a second, from a Parquet file's embeddings and to a file."""
    values = pa.array(vectors_NE.astype(np.float16).ravel())
    table = pa.table({"embedding": pa.FixedSizeListArray.from_arrays(values, vectors_NE.shape[1])})
    try:
        place = Path(tempfile.mkdtemp(prefix=".speed-", dir=folder))
    except OSError:  # a store that can only be read can be planned for
        place = Path(tempfile.mkdtemp(prefix="clipsieve-speed-"))
    megabytes = values.nbytes / 1e6
    try:
        pq.write_table(table, place / "part.parquet")
        read = _seconds(lambda: pq.read_table(place / "part.parquet", columns=["embedding"]), 4)
        write = _seconds(lambda: (place / "codes").write_bytes(values.buffers()[1]), 4)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return megabytes / read, megabytes / write
