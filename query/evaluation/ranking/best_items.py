"""The best items of each query so far, while the gallery passes block by block.

Shapes: Q queries, K best items, n queries of a part of the score matrix, b items of a block.
"""

import numpy as np


class BestItems:
    """The K best items of Q queries, best first; of equal scores, the item that came first."""

    def __init__(self, num_queries: int, k: int) -> None:
        """Begin without any item."""
        self.ids_QK = np.full((num_queries, k), -1, np.int32)
        self.scores_QK = np.full((num_queries, k), -np.inf, np.float32)

    def add(self, scores_nb: np.ndarray, first_query: int, first_item: int) -> None:
        """Take the best of a part of the score matrix. Its items come after those that were added."""
        rows, k = slice(first_query, first_query + len(scores_nb)), self.ids_QK.shape[1]
        least_n = self.scores_QK[rows, -1]
        if scores_nb.shape[1] > k:  # no item of this block below its own k-th best is needed
            is_open_n = np.isneginf(least_n)
            if is_open_n.any():
                kth_n = np.partition(scores_nb[is_open_n], -k, axis=1)[:, -k]
                least_n = least_n.copy()
                least_n[is_open_n] = np.nextafter(kth_n, np.float32(-np.inf))
        places = np.flatnonzero(scores_nb > least_n[:, None])
        rows_P, items_P = np.divmod(places, scores_nb.shape[1])
        nums_n = np.bincount(rows_P, minlength=len(scores_nb))
        columns_P = np.arange(len(places)) - np.repeat(np.cumsum(nums_n) - nums_n, nums_n)
        shape = (len(scores_nb), nums_n.max(initial=0))
        new_scores, new_ids = np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32)
        new_scores[rows_P, columns_P] = scores_nb[rows_P, items_P]
        new_ids[rows_P, columns_P] = first_item + items_P
        scores = np.concatenate([self.scores_QK[rows], new_scores], axis=1)
        ids = np.concatenate([self.ids_QK[rows], new_ids], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        self.scores_QK[rows] = np.take_along_axis(scores, order, 1)
        self.ids_QK[rows] = np.take_along_axis(ids, order, 1)
