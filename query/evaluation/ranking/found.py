"""The answers of an index, which sees only some of the items.

Shapes: Q queries, N items, P pairs of a query and an item, F items found, K best hits that answers hold.
"""

import numpy as np

from query.evaluation.ranking.answers import Answers
from query.evaluation.ranking.right_items import ROUNDING, with_alike


def answers_found(
    ids_QF: np.ndarray,
    scores_QF: np.ndarray,
    pairs_P2: np.ndarray,
    num_items: int,
    *,
    k: int = 100,
    epsilon: float = 1e-3,
    alike_N: np.ndarray | None = None,
) -> Answers:
    """What an index found, as answers. What it did not find ranks last.

    Args:
        ids_QF: int64, best first; -1 where fewer were found.
        scores_QF: float32: their scores.
        pairs_P2: (query, item that answers it), each once.
        num_items: N.
        k: K, at least F; the rest is -1.
        epsilon: See `Answers.above_epsilon_Q`.
        alike_N: The number of each item's group of near-duplicates. None if every item is on its own.

    Returns:
        The answers. For a query with no right item among those found, all N items count as above, and the best right
        score is NaN.
    """
    num_found = ids_QF.shape[1]
    scores_QF = np.where(ids_QF < 0, -np.inf, scores_QF).astype(np.float32)
    is_right_QF = _are_pairs(ids_QF, pairs_P2, num_items)
    wide = pairs_P2 if alike_N is None else with_alike(pairs_P2, alike_N)
    best_Q, above_Q, at_least_Q = _counts(scores_QF, is_right_QF, num_items)
    unlike_Q = _counts(scores_QF, _are_pairs(ids_QF, wide, num_items), num_items)[2]
    rest = ((0, 0), (0, k - num_found))
    return Answers(
        best_Q=best_Q,
        above_Q=above_Q,
        tied_Q=at_least_Q - above_Q,
        tied_right_Q=(is_right_QF & (scores_QF >= best_Q[:, None] - ROUNDING)).sum(axis=1, dtype=np.int32),
        above_epsilon_Q=_counts(scores_QF, is_right_QF, num_items, max(epsilon, ROUNDING))[1],
        unlike_Q=unlike_Q,
        ids_QK=np.pad(ids_QF.astype(np.int32), rest, constant_values=-1),
        scores_QK=np.pad(scores_QF, rest, constant_values=-np.inf),
    )


def _are_pairs(ids_QF: np.ndarray, pairs_P2: np.ndarray, num_items: int) -> np.ndarray:
    # where nothing was found, -1 may look like another query's pair; its score is -inf and counts for nothing
    asked_QF = np.arange(len(ids_QF))[:, None] * num_items + ids_QF
    return np.isin(asked_QF, pairs_P2[:, 0] * num_items + pairs_P2[:, 1])


def _counts(
    scores_QF: np.ndarray, is_right_QF: np.ndarray, num_items: int, margin: float = ROUNDING
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best right score [Q], and how many wrong items are above it by a margin, and at least the same [Q]."""
    best_Q = np.where(is_right_QF, scores_QF, -np.inf).max(axis=1, initial=-np.inf).astype(np.float32)
    is_found_Q, is_wrong_QF = ~np.isneginf(best_Q), ~is_right_QF
    above_Q = (is_wrong_QF & (scores_QF > best_Q[:, None] + margin)).sum(axis=1)
    at_least_Q = (is_wrong_QF & (scores_QF >= best_Q[:, None] - ROUNDING)).sum(axis=1)
    counts = (np.where(is_found_Q, num_Q, num_items).astype(np.int32) for num_Q in (above_Q, at_least_Q))
    return np.where(is_found_Q, best_Q, np.nan).astype(np.float32), *counts
