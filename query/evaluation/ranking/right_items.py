"""The items that answer each query: their scores, and where they are in a block of scores.

Shapes: Q queries, N items, P pairs of a query and an item, E embedding width.
"""

import numpy as np

ROUNDING = 1e-6
"""Inner products of float32 unit vectors that differ by no more are the same."""
_PAIRS_AT_ONCE = 16_384


class RightItems:
    """Pairs of a query and an item, in an order in which those of a block of the gallery are found at once."""

    def __init__(
        self, pairs_P2: np.ndarray, queries_QE: np.ndarray, gallery_NE: np.ndarray, rows_per_block: int
    ) -> None:
        """Score the pairs.

        Args:
            pairs_P2: (query, item), each once, in any order.
            queries_QE: float32.
            gallery_NE: float16 or float32, possibly mapped.
            rows_per_block: Items in a block.
        """
        order_P = np.lexsort((pairs_P2[:, 0], pairs_P2[:, 1] // rows_per_block))
        self._queries_P, self._items_P = pairs_P2[order_P].astype(np.int32).T.copy()
        num_blocks = -(-len(gallery_NE) // rows_per_block)
        self._bounds = np.searchsorted(self._items_P // rows_per_block, np.arange(num_blocks + 1))
        self._rows_per_block = rows_per_block
        scores_P = np.empty(len(pairs_P2), np.float32)
        for first in range(0, len(scores_P), _PAIRS_AT_ONCE):
            some = slice(first, first + _PAIRS_AT_ONCE)
            items_PE = gallery_NE[self._items_P[some]].astype(np.float32)
            scores_P[some] = np.vecdot(queries_QE[self._queries_P[some]], items_PE)
        self.best_Q = np.full(len(queries_QE), -np.inf, np.float32)
        """The best score of each query's items; -inf without any."""
        np.maximum.at(self.best_Q, self._queries_P, scores_P)
        is_best_P = scores_P >= self.best_Q[self._queries_P] - ROUNDING
        self.num_best_Q = np.bincount(self._queries_P[is_best_P], minlength=len(queries_QE)).astype(np.int32)
        """How many of them have that score."""

    def take_out(self, scores: np.ndarray, first_query: int, first_item: int) -> None:
        """Set the scores of pairs to -inf in a part of the score matrix, which is of one block of the gallery.

        Args:
            scores: float32 [queries, items of the block], changed.
            first_query: The query of its first row.
            first_item: The item of its first column.
        """
        block = first_item // self._rows_per_block
        queries = self._queries_P[self._bounds[block] : self._bounds[block + 1]]
        start, stop = self._bounds[block] + np.searchsorted(queries, (first_query, first_query + len(scores)))
        scores[self._queries_P[start:stop] - first_query, self._items_P[start:stop] - first_item] = -np.inf


def with_alike(pairs_P2: np.ndarray, alike_N: np.ndarray) -> np.ndarray:
    """The pairs (int64 [P, 2]) of queries with right items, and with every item in the group of one of those.

    Args:
        pairs_P2: (query, item).
        alike_N: The number of each item's group.
    """
    order_N = np.argsort(alike_N, kind="stable")
    wanted_P2 = np.unique(np.stack([pairs_P2[:, 0], alike_N[pairs_P2[:, 1]]], axis=1), axis=0)
    starts_P = np.searchsorted(alike_N[order_N], wanted_P2[:, 1])
    sizes_P = np.searchsorted(alike_N[order_N], wanted_P2[:, 1], side="right") - starts_P
    within = np.arange(sizes_P.sum()) - np.repeat(np.cumsum(sizes_P) - sizes_P, sizes_P)
    return np.stack([np.repeat(wanted_P2[:, 0], sizes_P), order_N[np.repeat(starts_P, sizes_P) + within]], axis=1)
