"""Rank a gallery for every query, block by block: memory does not grow with the gallery.

Shapes: Q queries, N items, P pairs of a query and an item, E embedding width, K best items.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from query.evaluation.ranking.answers import Answers
from query.evaluation.ranking.best_items import BestItems
from query.evaluation.ranking.right_items import ROUNDING, RightItems, with_alike

GALLERY_ROWS = 8_192
QUERY_ROWS = 8_192
"""Sides of the part of the score matrix that exists at once: 256 MiB."""
PASS_ROWS = 128
"""Queries of it that one thread works through at once, so that what it looks at several times stays in its cache."""


def answers(
    queries_QE: np.ndarray,
    gallery_NE: np.ndarray,
    pairs_P2: np.ndarray,
    *,
    k: int = 100,
    epsilon: float = 1e-3,
    alike_N: np.ndarray | None = None,
    on_block: Callable[[int, int], None] = lambda num_done, num_items: None,
) -> Answers:
    """Compare every query with every item.

    Args:
        queries_QE: Unit vectors.
        gallery_NE: Unit vectors, float16 or float32; may be a memory map.
        pairs_P2: (query, item that answers it), each once.
        k: How many of the best items to keep.
        epsilon: See `Answers.above_epsilon_Q`.
        alike_N: The number of each item's group of near-duplicates. None if every item is on its own.
        on_block: Called with how many items are done, and N.

    Returns:
        The answers. For a query without a right item all N items count as above.
    """
    queries_QE = np.ascontiguousarray(queries_QE, np.float32)
    counts = _Counts(queries_QE, gallery_NE, pairs_P2, epsilon, alike_N)
    best = BestItems(len(queries_QE), k)
    scores = np.empty(min(QUERY_ROWS, len(queries_QE)) * min(GALLERY_ROWS, len(gallery_NE)), np.float32)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for item in range(0, len(gallery_NE), GALLERY_ROWS):
            block = gallery_NE[item : item + GALLERY_ROWS].astype(np.float32)
            for query in range(0, len(queries_QE), QUERY_ROWS):
                own = queries_QE[query : query + QUERY_ROWS]
                scores_qb = scores[: len(own) * len(block)].reshape(len(own), len(block))
                np.matmul(own, block.T, out=scores_qb)

                def look(start: int, scores_qb: np.ndarray = scores_qb, query: int = query, item: int = item) -> None:
                    some = scores_qb[start : start + PASS_ROWS]
                    best.add(some, query + start, item)  # right items among them
                    counts.add(some, query + start, item)

                for _ in pool.map(look, range(0, len(own), PASS_ROWS)):
                    pass
            on_block(min(item + GALLERY_ROWS, len(gallery_NE)), len(gallery_NE))
    return counts.answers(best)


class _Counts:
    """How many wrong items of each query score above its best right one, while the gallery passes block by block."""

    def __init__(
        self,
        queries_QE: np.ndarray,
        gallery_NE: np.ndarray,
        pairs_P2: np.ndarray,
        epsilon: float,
        alike_N: np.ndarray | None,
    ) -> None:
        self._right = RightItems(pairs_P2, queries_QE, gallery_NE, GALLERY_ROWS)
        best_Q = self._right.best_Q
        # without a right item the bounds are -inf, and every item is above
        self._bounds_3Q = (best_Q - ROUNDING, best_Q + ROUNDING, best_Q + max(ROUNDING, epsilon))
        self._above_3Q = np.zeros((3, len(best_Q)), np.int32)
        self._alike, self._has_alike_Q = None, np.zeros(len(best_Q), bool)
        self._unlike_Q = np.zeros(len(best_Q), np.int32)
        if alike_N is not None:
            pairs = with_alike(pairs_P2, alike_N)
            nums = (np.bincount(found[:, 0], minlength=len(best_Q)) for found in (pairs, pairs_P2))
            self._has_alike_Q = np.not_equal(*nums)
            pairs = pairs[self._has_alike_Q[pairs[:, 0]]]
            self._alike = RightItems(pairs, queries_QE, gallery_NE, GALLERY_ROWS)

    def add(self, scores_nb: np.ndarray, first_query: int, first_item: int) -> None:
        """Count in a part of the score matrix of one block; the scores of right items are lost."""
        rows = slice(first_query, first_query + len(scores_nb))
        self._right.take_out(scores_nb, first_query, first_item)
        for above_Q, bounds_Q in zip(self._above_3Q, self._bounds_3Q, strict=True):
            above_Q[rows] += _num_above(scores_nb, bounds_Q[rows])
        has_alike_n = self._has_alike_Q[rows]
        if has_alike_n.any():
            self._alike.take_out(scores_nb, first_query, first_item)
            bounds_n = self._alike.best_Q[rows][has_alike_n] - ROUNDING
            self._unlike_Q[rows][has_alike_n] += _num_above(scores_nb[has_alike_n], bounds_n)

    def answers(self, best: BestItems) -> Answers:
        """All that is known in the end."""
        best_Q, (at_least_Q, above_Q, above_epsilon_Q) = self._right.best_Q, self._above_3Q
        return Answers(
            best_Q=np.where(np.isneginf(best_Q), np.nan, best_Q),
            above_Q=above_Q,
            tied_Q=at_least_Q - above_Q,
            tied_right_Q=self._right.num_best_Q,
            above_epsilon_Q=above_epsilon_Q,
            unlike_Q=np.where(self._has_alike_Q, self._unlike_Q, at_least_Q),
            ids_QK=best.ids_QK,
            scores_QK=best.scores_QK,
        )


def _num_above(scores_nb: np.ndarray, bounds_n: np.ndarray) -> np.ndarray:
    """How many scores of each row are at least its bound (int32 [n])."""
    packed = np.packbits(scores_nb >= bounds_n[:, None], axis=1)  # counting bits takes a sixth of counting bools
    return np.bitwise_count(packed).sum(axis=1, dtype=np.int32)
