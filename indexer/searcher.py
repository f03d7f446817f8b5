"""Search an index: candidates from FAISS, exact scores from the vector file, deleted rows left out.

Shapes: Q queries, N rows, E embedding width, K results, C candidates.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import faiss
import numpy as np
import pyarrow as pa

from indexer.files import load_index
from indexer.proof.truth import score_all
from indexer.recipes.nearby import NearbyLists
from indexer.recipes.point import OperatingPoint, search_parameters
from indexer.recipes.recipe import Kind, Recipe, can_leave_rows_out, scan_list_by_list
from indexer.rows.mapped import MappedRows
from pipeline.errors import ConfigError, StoreError

EXACT_ROWS = 20_000
"""Up to so many allowed rows are all compared, without the index."""
LEAST_SHARE = 0.2
"""If a smaller share of a graph's rows is allowed, all or near the query, the allowed rows are all compared."""
SAMPLED_NEIGHBOURS = 100
"""Rows near a query that tell which share is allowed there."""
GPU_CANDIDATES = 2_048
"""FAISS's limit on a GPU."""
GATHER_SHARE = 200
"""If fewer than one row in so many is allowed, the allowed rows are gathered; otherwise all rows are passed by."""


class IndexSearcher:
    """An opened index. Safe to use from several threads."""

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        rows: MappedRows,
        point: OperatingPoint,
        deleted: np.ndarray,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        warning: str | None = None,
    ) -> None:
        """Open the index file.

        Args:
            path: The FAISS index over positions.
            recipe: Its recipe.
            rows: Its rows.
            point: How hard to search.
            deleted: Ids (int64, ascending) that must not be found; the index may be older than they are.
            device: Where to search. A GPU takes exact and IVF indexes of plain codes; the others stay on the CPU.
            warning: What whoever searches should know about the index.

        Raises:
            ConfigError: If a GPU is asked for, and FAISS sees none.
            StoreError: If the file cannot be read.
        """
        self.warning = warning
        if device == "cuda" and faiss.get_num_gpus() == 0:
            raise ConfigError("device = 'cuda': FAISS finds no GPU; give --device cpu, or run `clipsieve doctor`")
        self.recipe, self.rows, self.point = recipe, rows, point
        self._index = load_index(path)
        scan_list_by_list(self._index)
        if self._index.d != rows.dim:
            raise StoreError(
                f"{path} has {self._index.d} dimensions, its vectors have {rows.dim}; rebuild the index with "
                "`clipsieve index --rebuild`"
            )
        # float32 vectors that are compared in float16 are scored again
        self._is_exact = recipe.kind is Kind.EXACT and (recipe.factory, rows.files.dtype) != ("SQfp16", "float32")
        self.dead = rows.positions(deleted)
        self._live_N = self._live_bits = None
        if len(self.dead):
            self._live_N = np.ones(rows.num_rows, bool)
            self._live_N[self.dead] = False
            self._live_bits = _bits(self._live_N)
        self._can_leave_out = can_leave_rows_out(self._index)
        self._exact = rows.as_index()
        self._refined = _refined(self._index, self._exact)
        self.device, self._gpu_refined = "cpu", None
        if device != "cpu" and faiss.get_num_gpus() > 0 and _fits_gpu(self._index, recipe):
            self._resources = faiss.StandardGpuResources()
            self._on_gpu = faiss.index_cpu_to_gpu(self._resources, 0, self._index)
            self._gpu_refined = _refined(self._on_gpu, self._exact)
            self.device = "gpu"

    @property
    def num_rows(self) -> int:
        """Rows that can be found."""
        return self.rows.num_rows - len(self.dead)

    def search(
        self,
        queries_QE: np.ndarray,
        k: int,
        allowed_ids: np.ndarray | None = None,
        point: OperatingPoint | None = None,
        allowed_N: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the best rows of each query.

        Args:
            queries_QE: Unit vectors.
            k: Results per query.
            allowed_ids: Only these rows may be found (int64, any order).
            point: How hard to search, if not as the index was tuned.
            allowed_N: Only rows where this is true may be found (bool, by position). Takes less time than their ids.

        Returns:
            Exact scores (float32 [Q, K], descending) and ids (int64 [Q, K]), K = min(k, rows that can be found).
            Where a graph found fewer, the score is -inf and the id is -1.
        """
        scores_QK, positions_QK = self.find(queries_QE, k, allowed_ids, point, allowed_N)
        return scores_QK, self.rows.ids(positions_QK)

    def metadata(self, ids: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """The metadata of rows, in the order of `ids` (int64 [n], all in the index)."""
        positions = self.rows.positions(ids)
        if len(positions) < len(ids):  # ids out of order
            raise StoreError("the ids of the index are damaged; run `clipsieve index --check`, then --rebuild")
        return self.rows.metadata(positions, columns)

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """The vectors (float32 [n, E]) of rows, in the order of `ids` (int64 [n], all in the index)."""
        return self.rows.vectors(self.rows.positions(ids))

    def find(
        self,
        queries_QE: np.ndarray,
        k: int,
        allowed_ids: np.ndarray | None = None,
        point: OperatingPoint | None = None,
        allowed_N: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, with positions instead of ids."""
        queries_QE = np.ascontiguousarray(queries_QE, np.float32)
        kept_N, num_kept = self._live_N, self.num_rows
        is_filtered = allowed_ids is not None or allowed_N is not None
        if is_filtered:
            kept_N = self._kept(allowed_ids, allowed_N)
            num_kept = int(np.count_nonzero(kept_N))
        k = min(k, num_kept)
        if k == 0:
            return np.empty((len(queries_QE), 0), np.float32), np.empty((len(queries_QE), 0), np.int64)
        point, share, bitmap = point or self.point, 1.0, None
        if kept_N is not None:
            is_few = is_filtered and num_kept <= EXACT_ROWS
            share = num_kept / self.rows.num_rows if is_filtered else 1.0
            if is_few or not self._can_leave_out or (self.recipe.kind is Kind.GRAPH and share < LEAST_SHARE):
                return self._compare(queries_QE, k, kept_N, num_kept)
            bitmap = _bits(kept_N) if is_filtered else self._live_bits
        if is_filtered and self.recipe.kind is Kind.LISTS:
            scores_QK, positions_QK = self._propose_nearby(queries_QE, k, point, kept_N, bitmap)
        elif is_filtered and self.recipe.kind is Kind.GRAPH:
            scores_QK, positions_QK = self._propose_in_graph(queries_QE, k, point, kept_N, bitmap)
        else:
            scores_QK, positions_QK = self._propose(queries_QE, k, point, share, bitmap)
        short = np.flatnonzero(positions_QK[:, -1] < 0)
        if len(short) and self.recipe.kind is Kind.LISTS:  # the lists that were scanned hold fewer rows: scan them all
            point = point.model_copy(update={"effort": self.recipe.num_lists})
            scores_QK[short], positions_QK[short] = self._propose(queries_QE[short], k, point, share, bitmap)
        elif len(short) and is_filtered:  # the allowed rows are out of the graph's reach
            scores_QK[short], positions_QK[short] = self._compare(queries_QE[short], k, kept_N, num_kept)
        return scores_QK, positions_QK

    def _kept(self, allowed_ids: np.ndarray | None, allowed_N: np.ndarray | None) -> np.ndarray:
        """The rows that are allowed and not deleted (bool [N])."""
        kept_N = np.zeros(self.rows.num_rows, bool)
        if allowed_ids is None:
            if allowed_N.shape != kept_N.shape or allowed_N.dtype != bool:
                raise ValueError(f"allowed_N is {allowed_N.dtype} {allowed_N.shape}, expected bool {kept_N.shape}")
            kept_N[:] = allowed_N
        else:
            kept_N[self.rows.positions(_ascending(allowed_ids))] = True
            if allowed_N is not None:
                kept_N &= allowed_N
        kept_N[self.dead] = False
        return kept_N

    @cached_property
    def _nearby(self) -> NearbyLists:
        return NearbyLists(self._index, self.rows.num_rows)

    def _propose_nearby(
        self, queries_QE: np.ndarray, k: int, point: OperatingPoint, kept_N: np.ndarray, bitmap: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_propose`, with as many lists for each query as it takes to meet enough allowed rows."""
        efforts_Q = self._nearby.efforts(queries_QE, kept_N, point.effort)
        scores_QK = np.empty((len(queries_QE), k), np.float32)
        positions_QK = np.empty((len(queries_QE), k), np.int64)
        for effort in np.unique(efforts_Q):
            same = np.flatnonzero(efforts_Q == effort)
            harder = point.model_copy(update={"effort": int(effort)})
            scores_QK[same], positions_QK[same] = self._propose(queries_QE[same], k, harder, 1.0, bitmap)
        return scores_QK, positions_QK

    def _propose_in_graph(
        self, queries_QE: np.ndarray, k: int, point: OperatingPoint, kept_N: np.ndarray, bitmap: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_propose`, with more effort where fewer rows near a query are allowed; without the graph at very few."""
        count = min(max(point.candidates_for(k), SAMPLED_NEIGHBOURS), self.rows.num_rows)
        parameters, _alive = search_parameters(self._index, Kind.GRAPH, max(point.effort, count))
        near_QC = self._index.search(queries_QE, count, params=parameters)[1]
        tenths_Q = (10 * (kept_N[near_QC] & (near_QC >= 0)).mean(axis=1)).astype(np.int64)
        scores_QK = np.empty((len(queries_QE), k), np.float32)
        positions_QK = np.empty((len(queries_QE), k), np.int64)
        for tenths in np.unique(tenths_Q):
            same = np.flatnonzero(tenths_Q == tenths)
            if tenths < 10 * LEAST_SHARE:
                found = self._compare(queries_QE[same], k, kept_N, int(np.count_nonzero(kept_N)))
            else:
                found = self._propose(queries_QE[same], k, point, tenths / 10, bitmap)
            scores_QK[same], positions_QK[same] = found
        return scores_QK, positions_QK

    def _propose(
        self, queries_QE: np.ndarray, k: int, point: OperatingPoint, share: float, bitmap: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best of the candidates that the index proposes. `bitmap` has a set bit for each row that may be found."""
        count = k if self._is_exact else min(point.candidates_for(k), self.rows.num_rows)
        is_lists = self.recipe.kind is Kind.LISTS
        # of the rows that are met, only a share is allowed; a graph meets as many as it proposes, at least
        effort = int(-(-(point.effort if is_lists else max(point.effort, count)) // share))
        effort = min(effort, self.recipe.num_lists if is_lists else self.rows.num_rows)
        selector = None if bitmap is None else faiss.IDSelectorBitmap(bitmap)
        parameters, _alive = search_parameters(self._index, self.recipe.kind, effort, selector)
        if self._is_exact and (selector is not None or self._gpu_refined is None):
            return self._index.search(queries_QE, k, params=parameters)
        factor = (count + 0.5) / k  # FAISS takes the integer part of k times this
        refining = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=parameters)
        if selector is None and self._gpu_refined is not None and max(count, effort) <= GPU_CANDIDATES:
            return self._gpu_refined.search(queries_QE, k, params=refining)
        return self._refined.search(queries_QE, k, params=refining)

    def _compare(
        self, queries_QE: np.ndarray, k: int, kept_N: np.ndarray, num_kept: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compare the queries with every row that may be found."""
        if num_kept * GATHER_SHARE < self.rows.num_rows:
            positions = np.flatnonzero(kept_N)
            return score_all(queries_QE, self.rows.vectors(positions), positions, k)
        selector = faiss.IDSelectorBitmap(_bits(kept_N))
        return self._exact.search(queries_QE, k, params=faiss.SearchParameters(sel=selector))


def search_on_this_thread_alone() -> None:
    """Let searches that the calling thread starts use no other threads; those of other threads are not affected."""
    faiss.omp_set_num_threads(1)


def _refined(index: faiss.Index, exact: faiss.Index) -> faiss.IndexRefine:
    """Candidates from one index, scored by the other, as one search of FAISS."""
    num_rows, exact.ntotal = exact.ntotal, index.ntotal  # FAISS wants as many; deleted rows are gone from lists
    refined = faiss.IndexRefine(index, exact)
    exact.ntotal = refined.ntotal = num_rows
    return refined


def _bits(kept_N: np.ndarray) -> np.ndarray:
    """One bit per row (uint8), as FAISS's selectors take them."""
    return np.packbits(kept_N, bitorder="little")


def _ascending(ids: np.ndarray) -> np.ndarray:
    """The ids, each once and in order; sorting takes longer than the search, and most callers have them sorted."""
    ids = np.asarray(ids, np.int64)
    return ids if (ids[1:] > ids[:-1]).all() else np.unique(ids)


def _fits_gpu(index: faiss.Index, recipe: Recipe) -> bool:
    # FAISS on a GPU knows neither fast-scan nor graphs, and ignores selectors
    return recipe.kind in (Kind.EXACT, Kind.LISTS) and "fs" not in recipe.factory and "RaBitQ" not in recipe.factory
