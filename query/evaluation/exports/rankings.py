"""The ranked lists of a condition as other tools see them: identifiers, grades, and an order without ties.

Shapes: Q queries that have an answer, P pairs of a query and an item that answers it, K best hits.
"""

from dataclasses import dataclass

import numpy as np

from query.evaluation.exports.names import without_blanks
from query.evaluation.metrics.measured import TEXT_TO_IMAGE, tasks_of
from query.evaluation.metrics.right import Right
from query.evaluation.ranking.answers import Answers
from query.evaluation.ranking.right_items import ROUNDING
from query.evaluation.raw.data import DataTables


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Which item answers which query of a task, and what they are called."""

    query_ids: list[str]
    """Of the queries that have an answer [Q]."""
    item_ids: list[str]
    right: Right


def judgements(data: DataTables, task: str) -> Judgements:
    """The judgements of `image_retrieval`, where texts ask for images, or of `text_retrieval`, the other way."""
    images, texts = [without_blanks(key) for key in data.keys], [f"t{number}" for number in range(len(data.titles))]
    queries, items = (texts, images) if task == TEXT_TO_IMAGE else (images, texts)
    right = tasks_of(data)[task].right
    return Judgements(query_ids=[queries[asked] for asked in right.asked_Q], item_ids=items, right=right)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Ranked lists without ties: whoever sorts by score gets this order, and the strict ranks."""

    ids_QK: np.ndarray
    """int32: best first; -1 where there are fewer."""
    scores_QK: np.ndarray
    """float32: strictly falling; lower than measured by about `ROUNDING` where scores were equal."""
    gains_QK: np.ndarray
    """float32: grades of the items; 0 for wrong ones."""


def ranking(answers: Answers, judged: Judgements) -> Ranking:
    """Put wrong items before right ones where scores are equal, as the strict metrics do, then make the scores fall.

    Args:
        answers: The answers to all queries of the task.
        judged: Says which queries have an answer; the others are left out.
    """
    answers = judged.right.rows_of(answers)
    gains_QK = judged.right.grades_of(answers.ids_QK)
    with np.errstate(invalid="ignore"):  # -inf - -inf, beyond the end of the gallery
        falls_QK = answers.scores_QK[:, :-1] - answers.scores_QK[:, 1:] > ROUNDING
    group_QK = np.pad(np.cumsum(falls_QK, axis=1), ((0, 0), (1, 0)))
    order_QK = np.lexsort((gains_QK, group_QK), axis=1)
    ids_QK, gains_QK, scores_QK = (
        np.take_along_axis(values, order_QK, axis=1) for values in (answers.ids_QK, gains_QK, answers.scores_QK)
    )
    for k in range(1, scores_QK.shape[1]):
        below_Q = np.nextafter(scores_QK[:, k - 1], np.float32(-np.inf))
        scores_QK[:, k] = np.minimum(scores_QK[:, k], below_Q)
    return Ranking(ids_QK=ids_QK, scores_QK=scores_QK, gains_QK=gains_QK)


def trec_measures(found: Ranking, judged: Judgements, ks: tuple[int, ...]) -> dict[str, float]:
    """Means over the queries that have an answer, by trec_eval's definitions and mteb's names.

    Args:
        found: The ranked lists, at least max(ks) long unless the gallery is smaller.
        judged: What is right.
        ks: Ranks at which to cut.

    Returns:
        `ndcg_at_K`, `map_at_K`, `recall_at_K`, `precision_at_K`, `mrr_at_K` and `hit_rate_at_K`. recall is the share of
        the right items that are found; hit_rate is what CLIP's papers call recall@K.
    """
    gains_QK, num_right_Q = found.gains_QK.astype(np.float64), judged.right.num_right_Q
    right_QK = gains_QK > 0
    ranks_K = np.arange(1, gains_QK.shape[1] + 1)
    discounts_K = 1 / np.log2(ranks_K + 1)
    precision_QK = right_QK.cumsum(axis=1) / ranks_K
    ideal_QK = _ideal(judged.right, len(ranks_K))
    first_Q = np.where(right_QK.any(axis=1), right_QK.argmax(axis=1) + 1, np.inf)
    measures: dict[str, dict[int, np.ndarray]] = {
        "ndcg": {k: (gains_QK * discounts_K)[:, :k].sum(1) / (ideal_QK * discounts_K)[:, :k].sum(1) for k in ks},
        "map": {k: (precision_QK * right_QK)[:, :k].sum(1) / num_right_Q for k in ks},
        "recall": {k: right_QK[:, :k].sum(1) / num_right_Q for k in ks},
        "precision": {k: right_QK[:, :k].sum(1) / k for k in ks},
        "mrr": {k: np.where(first_Q <= k, 1 / first_Q, 0) for k in ks},
        "hit_rate": {k: first_Q <= k for k in ks},
    }
    return {f"{name}_at_{k}": float(values_Q.mean()) for name, by_k in measures.items() for k, values_Q in by_k.items()}


def _ideal(right: Right, length: int) -> np.ndarray:
    """The grades of each query's right items, best first, filled up with 0 [Q, length]."""
    order_P = np.lexsort((-right.grades_P, right.pairs_P2[:, 0]))
    queries_P, num_right_Q = right.pairs_P2[order_P, 0], right.num_right_Q
    place_P = np.arange(len(queries_P)) - (np.cumsum(num_right_Q) - num_right_Q)[queries_P]
    ideal_QK = np.zeros((len(num_right_Q), length))
    is_in_P = place_P < length
    ideal_QK[queries_P[is_in_P], place_P[is_in_P]] = right.grades_P[order_P][is_in_P]
    return ideal_QK
