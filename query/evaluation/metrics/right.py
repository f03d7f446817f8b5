"""Which items are right for each query of a task, and how right they are.

Queries without a right item are left out: no condition can answer them.
Shapes: Q queries of the task with a right item, G items of its gallery, P pairs of a query and a right item, K hits.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from query.evaluation.ranking.answers import Answers


@dataclass(frozen=True)
class Right:
    """The right answers of a task."""

    asked_Q: np.ndarray
    """int64 [Q]: which of all queries these are, ascending."""
    pairs_P2: np.ndarray
    """int64 [P, 2]: (place in `asked_Q`, item), ascending, each once."""
    grades_P: np.ndarray
    """float32 [P]: how well the item answers."""
    clusters_Q: np.ndarray
    """int64 [Q]: what each query belongs to when queries are resampled."""
    num_items: int
    """Size of the gallery G."""

    @cached_property
    def num_right_Q(self) -> np.ndarray:
        """How many items are right for each query, int64 [Q]."""
        return np.bincount(self.pairs_P2[:, 0], minlength=len(self.asked_Q))

    @cached_property
    def several_Q(self) -> np.ndarray:
        """Whether several items are right for each query, bool [Q]."""
        return self.num_right_Q > 1

    def rows_of(self, answers: Answers) -> Answers:
        """The answers to these queries, of the answers to all."""
        return replace(answers, **{field.name: getattr(answers, field.name)[self.asked_Q] for field in fields(answers)})

    def grades_of(self, ids_QK: np.ndarray) -> np.ndarray:
        """How well each hit answers its query, float32 [Q, K]; 0 for wrong items and for -1, which is no item."""
        known_P = self.pairs_P2[:, 0] * self.num_items + self.pairs_P2[:, 1]
        asked_QK = np.arange(len(ids_QK))[:, None] * self.num_items + ids_QK
        place_QK = np.searchsorted(known_P, asked_QK).clip(max=len(known_P) - 1)
        is_right_QK = (known_P[place_QK] == asked_QK) & (ids_QK >= 0)
        return np.where(is_right_QK, self.grades_P[place_QK], 0).astype(np.float32)


def right_images(pairs_P2: np.ndarray, grades_P: np.ndarray, clusters_Q: np.ndarray, num_images: int) -> Right:
    """The right images of each text, from the pairs of a data set: (text, image), ascending."""
    asked_Q, query_P = np.unique(pairs_P2[:, 0], return_inverse=True)
    return Right(asked_Q, np.stack([query_P, pairs_P2[:, 1]], axis=1), grades_P, clusters_Q[asked_Q], num_images)


def right_texts(pairs_P2: np.ndarray, grades_P: np.ndarray, num_texts: int) -> Right:
    """The right texts of each image, from the same pairs. Each image is resampled on its own."""
    order_P = np.lexsort((pairs_P2[:, 0], pairs_P2[:, 1]))
    asked_Q, query_P = np.unique(pairs_P2[order_P, 1], return_inverse=True)
    return Right(asked_Q, np.stack([query_P, pairs_P2[order_P, 0]], axis=1), grades_P[order_P], asked_Q, num_texts)
