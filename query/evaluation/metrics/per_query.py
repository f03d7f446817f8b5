"""What each query contributes to each metric, under CLIP_benchmark's names.

Ties are named: without a suffix, wrong items that score the same rank before the right one; `(expected)` is the mean
over all orders of what scores the same; `(epsilon)` forgives wrong items within epsilon; `(duplicates)` takes near
duplicates of right items as right.
Shapes: Q queries, K best hits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from query.evaluation.metrics.right import Right
from query.evaluation.ranking.answers import Answers
from query.evaluation.ranking.right_items import ROUNDING

_DEPTH = 10
"""Of nDCG and of per-query recall."""

_DISCOUNTS = 1 / np.log2(np.arange(_DEPTH) + 2)


@dataclass(frozen=True)
class PerQuery:
    """What each query contributes to a metric, float64 [Q], and how they are summed up."""

    values_Q: np.ndarray
    statistic: Literal["mean", "median", "p5"] = "mean"

    @property
    def is_mean(self) -> bool:
        """Whether they are averaged."""
        return self.statistic == "mean"


def metrics_of(task: str, answers: Answers, right: Right, ks: Sequence[int]) -> dict[str, PerQuery]:
    """Every metric of retrieval, by name.

    Args:
        task: `image_retrieval` or `text_retrieval`.
        answers: The answers to the Q queries of the task.
        right: Their right answers.
        ks: The k of recall@k.
    """
    found = {}
    for k in ks:
        found |= {f"{task}_recall@{k}{suffix}": values for suffix, values in _hits(answers, k).items()}
    ranks_Q = strict_ranks(answers)
    found[f"{task}_median_rank"] = PerQuery(np.minimum(ranks_Q, right.num_items) + 1, "median")
    found[f"{task}_mrr"] = PerQuery(1 / (ranks_Q + 1))
    grades_QK = _grades_worst_first(answers, right)
    found[f"{task}_ndcg@{_DEPTH}"] = PerQuery(_ndcg(grades_QK, right))
    if right.several_Q.any():
        # of the queries with several right answers only
        shares_Q = (grades_QK > 0).sum(axis=1) / right.num_right_Q
        found[f"{task}_recall@{_DEPTH}_p5"] = PerQuery(shares_Q[right.several_Q], "p5")
    return found


def accuracies_of(answers: Answers, num_classes: int) -> dict[str, PerQuery]:
    """acc1 and acc5: whether the class of each image is among the first one or five. None beyond the classes."""
    ks = [k for k in (1, 5) if k <= num_classes]
    return {f"acc{k}{suffix}": values for k in ks for suffix, values in _hits(answers, k, is_class=True).items()}


def strict_ranks(answers: Answers) -> np.ndarray:
    """Rank of the best right item of each query, float64 [Q]: 0 is first, infinite if an index did not find any."""
    return np.where(np.isnan(answers.best_Q), np.inf, answers.above_Q.astype(np.float64) + answers.tied_Q)


def expected_hits(answers: Answers, k: int) -> np.ndarray:
    """Chance of a right item among the first k, if what scores the same stands in a random order: float64 [Q].

    With t wrong and r right items of the best right score, and m places left for them among the first k, it is
    1 - C(t, m) / C(t + r, m): one minus the chance that all m places go to wrong ones.
    """
    places_Q = k - answers.above_Q.astype(np.int64)
    wrong_Q, right_Q = answers.tied_Q.astype(np.int64), answers.tied_right_Q.astype(np.int64)
    missed_Q = np.ones(len(places_Q))
    for place in range(k):
        # the item at this place is wrong, too, after `place` wrong ones
        left_Q = wrong_Q - place
        chance_Q = np.maximum(left_Q, 0) / np.maximum(left_Q + right_Q, 1)
        missed_Q *= np.where(place < places_Q, chance_Q, 1)
    return np.where(np.isnan(answers.best_Q), 0.0, 1 - missed_Q)


def _hits(answers: Answers, k: int, is_class: bool = False) -> dict[str, PerQuery]:
    """Whether a right item is among the first k, by the suffix of the tie rule."""
    has_right_Q = ~np.isnan(answers.best_Q)
    hits = {
        "": strict_ranks(answers) < k,
        "(expected)": expected_hits(answers, k),
        "(epsilon)": has_right_Q & (answers.above_epsilon_Q < k),
        "(duplicates)": answers.unlike_Q < k,  # an index may have found a duplicate alone
    }
    if is_class:  # classes have no duplicates
        del hits["(duplicates)"]
    return {suffix: PerQuery(values_Q.astype(np.float64)) for suffix, values_Q in hits.items()}


def _grades_worst_first(answers: Answers, right: Right) -> np.ndarray:
    """Grades of the first hits, float32 [Q, at most 10]; among those of one score, the worst stand first.

    Right items count as last if the score goes on to the end of the list: more wrong items may have it.
    """
    grades_QK = right.grades_of(answers.ids_QK)
    with np.errstate(invalid="ignore"):  # -inf - -inf, where the gallery ends
        falls_QK = answers.scores_QK[:, :-1] - answers.scores_QK[:, 1:] > ROUNDING
    run_QK = np.pad(np.cumsum(falls_QK, axis=1), ((0, 0), (1, 0)))
    if answers.ids_QK.shape[1] < right.num_items:
        grades_QK = np.where(run_QK == run_QK[:, -1:], 0, grades_QK)
    order_QK = np.lexsort((grades_QK, run_QK), axis=1)
    return np.take_along_axis(grades_QK, order_QK, axis=1)[:, :_DEPTH]


def _ndcg(grades_QK: np.ndarray, right: Right) -> np.ndarray:
    """nDCG@10 with the grades as gains, as in trec_eval: float64 [Q]; 0 for a query without a right item."""
    gains_Q = grades_QK @ _DISCOUNTS[: grades_QK.shape[1]]
    query_P = right.pairs_P2[:, 0]
    query_P, grades_P = (values[np.lexsort((-right.grades_P, query_P))] for values in (query_P, right.grades_P))
    place_P = np.arange(len(query_P)) - (np.cumsum(right.num_right_Q) - right.num_right_Q)[query_P]
    is_first_P = place_P < _DEPTH
    weights_P = grades_P[is_first_P] * _DISCOUNTS[place_P[is_first_P]]
    ideal_Q = np.bincount(query_P[is_first_P], weights=weights_P, minlength=len(gains_Q))
    return np.divide(gains_Q, ideal_Q, out=np.zeros(len(gains_Q)), where=ideal_Q > 0)
