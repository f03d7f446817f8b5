"""How many lists to scan for a query that may find only some rows.

Shapes: Q queries, N rows, S sampled rows, L lists, E embedding width.
"""

import faiss
import numpy as np

from indexer.recipes.recipe import transformed, unwrapped

SAMPLED_ROWS = 20_000
"""Of so many rows it is known in which list they are, which tells how the allowed ones are spread over the lists."""
DISTANCES_AT_ONCE = 1_000_000
"""Of queries to lists, which bounds the memory of a batch."""
STEP = 1.2
"""Efforts are rounded up to powers of this, so that queries of a batch share their search."""


class NearbyLists:
    """The lists of an IVF index, and in which of them the rows of a sample are.

    Allowed rows may be rare in the lists that are near a query, and common elsewhere: among photographs of one place,
    say. As many lists are scanned as hold as many allowed rows as the search without a filter scans rows.
    """

    def __init__(self, index: faiss.Index, num_rows: int) -> None:
        """Read which list the sampled rows are in.

        Args:
            index: An IVF index over positions, with its transforms.
            num_rows: The number of positions.
        """
        self._index, lists = index, unwrapped(index)
        self._quantizer, self._num_lists = faiss.downcast_index(lists.quantizer), lists.nlist
        self._stride = max(1, num_rows // SAMPLED_ROWS)
        self._list_S = np.full(-(-num_rows // self._stride), self._num_lists, np.int32)  # deleted rows are in no list
        for number in range(self._num_lists):
            size = lists.invlists.list_size(number)
            if size:
                positions = faiss.rev_swig_ptr(lists.invlists.get_ids(number), size)
                self._list_S[positions[positions % self._stride == 0] // self._stride] = number

    def efforts(self, queries_QE: np.ndarray, kept_N: np.ndarray, effort: int) -> np.ndarray:
        """The number of lists to scan for each query (int64 [Q]), `effort` at least.

        Args:
            queries_QE: The queries (float32).
            kept_N: Which rows may be found (bool).
            effort: How many lists are scanned if all rows may be found.
        """
        kept_L = np.bincount(self._list_S[kept_N[:: self._stride]], minlength=self._num_lists + 1)[: self._num_lists]
        wanted = effort / self._num_lists * len(self._list_S)
        efforts_Q = np.empty(len(queries_QE), np.int64)
        at_once = max(1, DISTANCES_AT_ONCE // self._num_lists)
        for first in range(0, len(queries_QE), at_once):
            queries = transformed(self._index, queries_QE[first : first + at_once])
            _, nearest_QL = self._quantizer.search(queries, self._num_lists)
            reached_QL = np.cumsum(np.where(nearest_QL < 0, 0, kept_L[nearest_QL]), axis=1)
            efforts_Q[first : first + at_once] = np.count_nonzero(reached_QL < wanted, axis=1) + 1
        steps = np.ceil(np.log(np.maximum(efforts_Q, effort)) / np.log(STEP))
        return np.minimum(np.ceil(STEP**steps).astype(np.int64), self._num_lists)
