"""How long a build and a query take, from the speeds of the machine.

Shapes: N rows, E embedding width, L lists, K candidates.
"""

from indexer.planning.sizes import CODES, Shape, index_bytes, padded_rows
from indexer.planning.speeds import Calibration, SearchSpeed

ITERATIONS = 10
"""Of k-means."""

_BESIDE_SCORES = 1.2
"""Finding the best score and averaging the rows, beside the multiply-adds."""
_PER_THREAD = 0.9
"""What each thread after the first adds."""
_GRAPH_BY_ROWS = 0.3
"""Four times the rows: 1.5 times the time of a step. Measured from 3,000 to 113,802 rows."""
_CACHE_BYTES = 16 << 20
"""An index of so many bytes is half in the cache."""
_CONVERTING = 1.5
"""Plain lists to fast-scan lists, beside encoding."""
_STARTING_S = 0.5
_OPENING_S, _OPENING_S_PER_BYTE = 0.01, 0.8e-9
"""FAISS reads fast-scan lists at 1.2 GB/s from the page cache, and maps all others."""
_CALL_US = 10.0
"""Of any search: Python, and the checks of its arguments."""


def query_ms(shape: Shape, num_rows: int, dim: int, speed: Calibration, effort: int = 0, candidates: int = 0) -> float:
    """One query on one thread, with its candidates scored again.

    Args:
        shape: The index.
        num_rows: Its rows.
        dim: Their width.
        speed: Of this machine, for this width.
        effort: nprobe or efSearch; 0 for an exact index.
        candidates: How many rows are scored again; 0 for an exact index.
    """
    if shape.is_exact:
        return (_CALL_US + num_rows * speed.flat_row_ns[shape.code] / 1e3) / 1e3
    size = index_bytes(shape, num_rows, dim)
    uncached = size / (size + _CACHE_BYTES)
    found_us = sum(
        share * _search_us(shape, num_rows, dim, found, effort, candidates, speed.graph_rows)
        for share, found in ((1 - uncached, speed.cached), (uncached, speed.uncached))
    )
    return (_CALL_US + found_us + speed.rescore_call_us + candidates * speed.rescore_us) / 1e3


def _search_us(
    shape: Shape, num_rows: int, dim: int, speed: SearchSpeed, effort: int, candidates: int, graph_rows: int
) -> float:
    """To find the candidates."""
    if shape.is_graph:
        return effort * speed.graph_us * _depth(num_rows, graph_rows)
    scan = speed.scan[shape.code]
    rotated = dim * dim if CODES[shape.code].is_rotated else 0
    coarse_us = speed.coarse_call_us + (shape.num_lists * dim + rotated) / speed.coarse_gmacs / 1e3
    rows = padded_rows(shape, num_rows) * effort / shape.num_lists
    return coarse_us + scan.call_us + effort * scan.list_us + rows * scan.row_ns / 1e3 + candidates * scan.candidate_us


def opening_s(shape: Shape, num_rows: int, dim: int) -> float:
    """To open the index, if its file is in the page cache."""
    read = index_bytes(shape, num_rows, dim) if CODES[shape.code].is_fast_scan else 0
    return _OPENING_S + read * _OPENING_S_PER_BYTE


def build_s(shape: Shape, num_rows: int, dim: int, num_train: int, threads: int, speed: Calibration) -> float:
    """From the store's parts to the files of the index, without proof."""
    parallel = 1 + _PER_THREAD * (threads - 1)
    vectors_mb = 2 * num_rows * dim / 1e6
    found = _STARTING_S + vectors_mb * (1 / speed.read_mb_s + 1 / speed.write_mb_s)
    found += index_bytes(shape, num_rows, dim) / 1e6 / speed.write_mb_s
    if shape.is_graph:
        return found + num_rows * speed.graph_add_us * _depth(num_rows, speed.graph_rows) / 1e6
    if shape.is_exact:
        return found + num_rows * speed.encode_us[shape.code] / 1e6
    assigned = _BESIDE_SCORES * (ITERATIONS * num_train + num_rows) * shape.num_lists * dim
    found += assigned / speed.assign_gmacs / 1e9 / parallel
    converted = _CONVERTING if CODES[shape.code].is_fast_scan else 1.0
    found += num_rows * speed.encode_us[shape.code] * converted / 1e6 / parallel
    return found + (dim // 2 * speed.pq_train_s / parallel if shape.code == "PQ4" else 0)


def _depth(num_rows: int, graph_rows: int) -> float:
    """How much more a step through a graph takes than in the small graph that was measured: caches do not hold it."""
    return max(1.0, (num_rows / graph_rows) ** _GRAPH_BY_ROWS)
