"""Exact inner-product search over an index file, which is always in its CPU form.

Shapes: Q queries, N vectors, E embedding width, K results.
"""

from pathlib import Path
from typing import Literal

import faiss
import numpy as np

from pipeline.errors import ConfigError, StoreError


class FlatSearcher:
    """An index loaded from disk to the fastest place: a GPU if FAISS sees one, otherwise main memory."""

    def __init__(self, path: Path, device: Literal["auto", "cpu", "cuda"] = "auto") -> None:
        """Read the index.

        Raises:
            ConfigError: If a GPU is asked for, and FAISS sees none.
            StoreError: If the file is missing or damaged.
        """
        if device == "cuda" and faiss.get_num_gpus() == 0:
            raise ConfigError("device = 'cuda': FAISS finds no GPU; give --device cpu, or run `clipsieve doctor`")
        try:
            self._owner = faiss.read_index(str(path))  # must stay alive: it owns the wrapped index
            self._ids = faiss.vector_to_array(self._owner.id_map)
            self._index = self._owner.index
        except (RuntimeError, AttributeError) as error:
            raise StoreError(f"cannot read the index {path}; rebuild it with `clipsieve index`") from error
        self.device = "cpu"
        if device != "cpu" and faiss.get_num_gpus() > 0:
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
