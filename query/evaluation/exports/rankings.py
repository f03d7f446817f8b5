"""The ranked lists of a condition as other tools see them: identifiers, grades, and an order without ties.

Shapes: Q queries, N items, P pairs of a query and an item that answers it, K best hits.
"""

from dataclasses import dataclass

import numpy as np

from query.evaluation.exports.names import without_blanks
from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.data import DataTables

TIED = 1e-6
"""Scores that differ by no more are equal, as in `Answers.tied_Q`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Which item answers which query of a task, and how well."""

    query_ids: list[str]
    item_ids: list[str]
    pairs_P2: np.ndarray
    """int64 [P, 2]: (query, item), ascending."""
    grades_P: np.ndarray
    """float32 [P]."""


def judgements(data: DataTables, task: str) -> Judgements:
    """The judgements of `image_retrieval`, or of `text_retrieval`, where each image that has texts asks for them."""
    images, texts = [without_blanks(key) for key in data.keys], [f"t{number}" for number in range(len(data.titles))]
    if task == "image_retrieval":
        return Judgements(query_ids=texts, item_ids=images, pairs_P2=data.pairs_P2, grades_P=data.grades_P)
    asking, query_P = np.unique(data.pairs_P2[:, 1], return_inverse=True)
    pairs_P2 = np.stack([query_P, data.pairs_P2[:, 0]], axis=1)
    order_P = np.lexsort((pairs_P2[:, 1], pairs_P2[:, 0]))
    return Judgements(
        query_ids=[images[image] for image in asking.tolist()],
        item_ids=texts,
        pairs_P2=pairs_P2[order_P],
        grades_P=data.grades_P[order_P],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Ranked lists without ties: whoever sorts by score gets this order, and the strict ranks."""

    ids_QK: np.ndarray
    """int32: best first; -1 where there are fewer."""
    scores_QK: np.ndarray
    """float32: strictly falling; lower than measured by about `TIED` where scores were equal."""
    gains_QK: np.ndarray
    """float32: grades of the items; 0 for wrong ones."""


def ranking(answers: Answers, judged: Judgements) -> Ranking:
    """Put wrong items before right ones where scores are equal, as the strict metrics do, then make the scores fall."""
    gains_QK = _gains(answers.ids_QK, judged)
    with np.errstate(invalid="ignore"):  # -inf - -inf, beyond the end of the gallery
        falls_QK = answers.scores_QK[:, :-1] - answers.scores_QK[:, 1:] > TIED
    group_QK = np.pad(np.cumsum(falls_QK, axis=1), ((0, 0), (1, 0)))
    order_QK = np.lexsort((gains_QK, group_QK), axis=1)
    ids_QK, gains_QK, scores_QK = (
        np.take_along_axis(values, order_QK, axis=1) for values in (answers.ids_QK, gains_QK, answers.scores_QK)
    )
    for k in range(1, scores_QK.shape[1]):
        below_Q = np.nextafter(scores_QK[:, k - 1], np.float32(-np.inf))
        scores_QK[:, k] = np.minimum(scores_QK[:, k], below_Q)
    return Ranking(ids_QK=ids_QK, scores_QK=scores_QK, gains_QK=gains_QK)


def _gains(ids_QK: np.ndarray, judged: Judgements) -> np.ndarray:
    num_items = len(judged.item_ids)
    wanted_QK = np.arange(len(ids_QK))[:, None] * num_items + ids_QK
    right_P = judged.pairs_P2 @ np.array([num_items, 1])
    place_QK = np.minimum(np.searchsorted(right_P, wanted_QK), len(right_P) - 1)
    is_right_QK = (right_P[place_QK] == wanted_QK) & (ids_QK >= 0)
    return np.where(is_right_QK, judged.grades_P[place_QK], 0).astype(np.float32)


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
    num_right_Q = np.bincount(judged.pairs_P2[:, 0], minlength=len(judged.query_ids))
    asked_Q = np.flatnonzero(num_right_Q)
    gains_QK, num_right_Q = found.gains_QK[asked_Q].astype(np.float64), num_right_Q[asked_Q]
    right_QK = gains_QK > 0
    ranks_K = np.arange(1, gains_QK.shape[1] + 1)
    discounts_K = 1 / np.log2(ranks_K + 1)
    precision_QK = right_QK.cumsum(axis=1) / ranks_K
    ideal_QK = _ideal(judged, len(ranks_K))[asked_Q]
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


def _ideal(judged: Judgements, length: int) -> np.ndarray:
    """The grades of each query's right items, best first, filled up with 0 [Q, length]."""
    order_P = np.lexsort((-judged.grades_P, judged.pairs_P2[:, 0]))
    queries_P = judged.pairs_P2[order_P, 0]
    starts_Q = np.searchsorted(queries_P, np.arange(len(judged.query_ids)))
    place_P = np.arange(len(queries_P)) - starts_Q[queries_P]
    ideal_QK = np.zeros((len(judged.query_ids), length))
    is_in_P = place_P < length
    ideal_QK[queries_P[is_in_P], place_P[is_in_P]] = judged.grades_P[order_P][is_in_P]
    return ideal_QK
