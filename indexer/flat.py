"""Exact inner-product search. Home of `faiss`; the file on disk is always the CPU form.

Shapes: Q queries, N vectors, E embedding width, K results.
"""

import errno
from collections.abc import Iterable
from pathlib import Path

import faiss
import numpy as np

from pipeline.errors import StoreError


def flat_index(dim: int, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> faiss.IndexIDMap2:
    """Build an exact index from `(ids int64 [n], vectors float32 [n, E])` parts, added one after the other."""
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
    for ids, vectors in parts:
        if len(ids):
            index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)
    return index


def save_index(index: faiss.Index, path: Path) -> None:
    """Write an index as is; the caller makes it atomic."""
    # through a file of Python's: FAISS's own only prints that the last bytes did not fit on the disk
    with path.open("wb") as file:
        try:
            faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
        except RuntimeError as error:
            raise OSError(errno.EIO, "the disk did not take all of it") from error


class FlatSearcher:
    """An index read from disk and put where it is fastest: on a GPU if FAISS sees one, else in memory."""

    def __init__(self, path: Path) -> None:
        """Read the index.

        Raises:
            StoreError: If the file is missing or damaged.
        """
        try:
            self._owner = faiss.read_index(str(path))  # frees what it wraps when it goes
            self._ids = faiss.vector_to_array(self._owner.id_map)
            self._index = self._owner.index
        except (RuntimeError, AttributeError) as error:
            raise StoreError(f"cannot read the index {path}; build it again with `clipsieve index`") from error
        self.device = "cpu"
        if faiss.get_num_gpus() > 0:
            self._resources = faiss.StandardGpuResources()
            self._index = faiss.index_cpu_to_gpu(self._resources, 0, self._index)
            self.device = "gpu"

    def search(self, queries_QE: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores (float32 [Q, K], larger is better) and ids (int64 [Q, K]), K = min(k, N)."""
        k = min(k, self._index.ntotal)
        if k == 0:
            return np.empty((len(queries_QE), 0), np.float32), np.empty((len(queries_QE), 0), np.int64)
        scores_QK, rows_QK = self._index.search(np.ascontiguousarray(queries_QE, dtype=np.float32), k)
        return scores_QK, self._ids[rows_QK]


def faiss_version() -> str:
    """Version of the FAISS in use."""
    return faiss.__version__


def faiss_build() -> dict[str, str | int]:
    """Version, compile options and visible GPUs, for `clipsieve doctor`."""
    return {
        "version": faiss.__version__,
        "compile_options": faiss.get_compile_options().strip(),
        "gpus": faiss.get_num_gpus(),
    }
