"""Search an index: candidates from FAISS, exact scores from the vector file, deleted rows left out.

Shapes: Q queries, N rows, E embedding width, K results, C candidates.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np

from indexer.files import load_index
from indexer.proof.truth import score_all
from indexer.recipes.point import OperatingPoint, search_parameters
from indexer.recipes.recipe import Kind, Recipe
from indexer.segments.mapped import MappedSegments
from pipeline.errors import ConfigError, StoreError

EXACT_ROWS = 20_000
"""Up to so many allowed rows are all compared, without the index."""
GPU_CANDIDATES = 2_048
"""FAISS's limit on a GPU."""
BATCH_BYTES = 256 << 20
"""Memory of the candidates' vectors of a batch of queries."""


class Searcher:
    """An opened index. Safe to use from several threads."""

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        segments: MappedSegments,
        point: OperatingPoint,
        deleted: np.ndarray,
        device: Literal["auto", "cpu", "cuda"] = "auto",
    ) -> None:
        """Open the index file.

        Args:
            path: The FAISS index over positions.
            recipe: Its recipe.
            segments: Its rows.
            point: How hard to search.
            deleted: Ids (int64, ascending) that must not be found; the index may be older than they are.
            device: Where to search. A GPU takes exact and IVF indexes of plain codes; the others stay on the CPU.

        Raises:
            ConfigError: If a GPU is asked for, and FAISS sees none.
            StoreError: If the file cannot be read.
        """
        if device == "cuda" and faiss.get_num_gpus() == 0:
            raise ConfigError("device = 'cuda': FAISS finds no GPU; give --device cpu, or run `clipsieve doctor`")
        self.recipe, self.segments, self.point = recipe, segments, point
        self._index = load_index(path)
        if self._index.d != segments.dim:
            raise StoreError(
                f"{path} has {self._index.d} dimensions, its vectors have {segments.dim}; rebuild the index with "
                "`clipsieve index --rebuild`"
            )
        self.dead = segments.positions(deleted)
        self._bitmap = _bitmap(segments.num_rows, self.dead) if len(self.dead) else None
        self.device, self._gpu_index = "cpu", None
        if device != "cpu" and faiss.get_num_gpus() > 0 and _fits_gpu(self._index, recipe):
            self._resources = faiss.StandardGpuResources()
            self._gpu_index = faiss.index_cpu_to_gpu(self._resources, 0, self._index)
            self.device = "gpu"

    @property
    def num_rows(self) -> int:
        """Rows that can be found."""
        return self.segments.num_rows - len(self.dead)

    def search(
        self, queries_QE: np.ndarray, k: int, allowed_ids: np.ndarray | None = None, point: OperatingPoint | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the best rows of each query.

        Args:
            queries_QE: Unit vectors.
            k: Results per query.
            allowed_ids: Only these rows may be found (int64, any order).
            point: How hard to search, if not as the index was tuned.

        Returns:
            Exact scores (float32 [Q, K], descending) and ids (int64 [Q, K]), K = min(k, rows that can be found).
            Where an index found fewer, the score is -inf and the id is -1.
        """
        scores_QK, positions_QK = self.find(queries_QE, k, allowed_ids, point)
        return scores_QK, self.segments.ids(positions_QK)

    def rows(self, ids: np.ndarray, columns: Sequence[str]) -> list[dict[str, Any]]:
        """The metadata of rows, in the order of `ids` (int64, all in the index)."""
        unique, inverse = np.unique(ids, return_inverse=True)
        found = self.segments.rows(self.segments.positions(unique), list(columns)).to_pylist()
        return [found[place] for place in inverse]

    def find(
        self, queries_QE: np.ndarray, k: int, allowed_ids: np.ndarray | None = None, point: OperatingPoint | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, with positions instead of ids."""
        queries_QE = np.ascontiguousarray(queries_QE, np.float32)
        allowed, bitmap = None, self._bitmap
        if allowed_ids is not None:
            allowed = np.setdiff1d(self.segments.positions(np.unique(allowed_ids)), self.dead, assume_unique=True)
        k = min(k, self.num_rows if allowed is None else len(allowed))
        if k == 0:
            return np.empty((len(queries_QE), 0), np.float32), np.empty((len(queries_QE), 0), np.int64)
        point, share = point or self.point, 1.0
        if allowed is not None:
            share = len(allowed) / self.segments.num_rows
            if len(allowed) <= EXACT_ROWS or (self.recipe.kind is Kind.GRAPH and share < 0.2):
                return self._compare(queries_QE, k, allowed)
            bitmap = ~_bitmap(self.segments.num_rows, allowed)
        candidates_QC = self._candidates(queries_QE, point, point.candidates_for(k), share, bitmap)
        return self._score(queries_QE, candidates_QC, k)

    def _candidates(
        self, queries_QE: np.ndarray, point: OperatingPoint, count: int, share: float, bitmap: np.ndarray | None
    ) -> np.ndarray:
        """Positions (int64 [Q, C]) that the index proposes, -1 where it has no more."""
        effort = -(-point.effort // share)  # of the rows that a list holds, only a share is allowed
        effort = int(min(effort, self.recipe.num_lists) if self.recipe.kind is Kind.LISTS else max(effort, count))
        count = min(count, self.segments.num_rows)
        if bitmap is None and self._gpu_index is not None and max(count, effort) <= GPU_CANDIDATES:
            parameters, _ = search_parameters(self._index, self.recipe.kind, effort)
            return self._gpu_index.search(queries_QE, count, params=parameters)[1]
        selector = None
        if bitmap is not None:  # a set bit is a row to leave out
            selector = faiss.IDSelectorNot(faiss.IDSelectorBitmap(bitmap))
        parameters, _alive = search_parameters(self._index, self.recipe.kind, effort, selector)
        return self._index.search(queries_QE, count, params=parameters)[1]

    def _score(self, queries_QE: np.ndarray, candidates_QC: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The `k` best candidates of each query by their exact scores."""
        step = max(1, BATCH_BYTES // (4 * self.segments.dim * candidates_QC.shape[1]))
        found = [
            self._score_few(queries_QE[low : low + step], candidates_QC[low : low + step], k)
            for low in range(0, len(queries_QE), step)
        ]
        return np.concatenate([scores for scores, _ in found]), np.concatenate([positions for _, positions in found])

    def _score_few(self, queries_QE: np.ndarray, candidates_QC: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        num, count = candidates_QC.shape
        sorted_QC = np.sort(candidates_QC, axis=1)  # so that files are read forwards
        vectors = self.segments.vectors(np.maximum(sorted_QC, 0).ravel()).reshape(num, count, -1)
        scores_QC = np.matmul(vectors, queries_QE[:, :, None])[:, :, 0]
        scores_QC[sorted_QC < 0] = -np.inf
        order = np.argsort(-scores_QC, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores_QC, order, 1), np.take_along_axis(sorted_QC, order, 1)

    def _compare(self, queries_QE: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compare the queries with every allowed row."""
        scores = np.full((len(queries_QE), 0), -np.inf, np.float32)
        positions = np.empty((len(queries_QE), 0), np.int64)
        for low in range(0, len(allowed), EXACT_ROWS):
            some = allowed[low : low + EXACT_ROWS]
            found = score_all(queries_QE, self.segments.vectors(some), some, k)
            scores, positions = np.hstack([scores, found[0]]), np.hstack([positions, found[1]])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def _bitmap(num_rows: int, positions: np.ndarray) -> np.ndarray:
    """One bit per row (uint8), set at `positions`."""
    bits = np.zeros(-(-num_rows // 8) * 8, bool)
    bits[positions] = True
    return np.packbits(bits, bitorder="little")


def _fits_gpu(index: faiss.Index, recipe: Recipe) -> bool:
    # FAISS on a GPU knows neither fast-scan nor graphs, and ignores selectors
    return recipe.kind in (Kind.EXACT, Kind.LISTS) and "fs" not in recipe.factory and "RaBitQ" not in recipe.factory
