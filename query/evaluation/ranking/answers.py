"""What is known of the answers to queries, before any metric.

Shapes: Q queries, K best hits.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The answers of a gallery to Q queries. A wrong item is one that does not answer the query."""

    best_Q: np.ndarray
    """float32: score of the best right item; NaN if there is none."""
    above_Q: np.ndarray
    """int32: wrong items that score higher, by more than float32 rounding."""
    tied_Q: np.ndarray
    """int32: wrong items whose score is the same up to float32 rounding. The strict rank is above + tied."""
    tied_right_Q: np.ndarray
    """int32: right items with the best score, at least 1 if there is one."""
    above_epsilon_Q: np.ndarray
    """int32: wrong items that score higher by more than epsilon."""
    unlike_Q: np.ndarray
    """int32: the strict rank if near-duplicates of right items count as right, too."""
    ids_QK: np.ndarray
    """int32: the best items, best first; -1 where there are fewer."""
    scores_QK: np.ndarray
    """float32: their scores."""
