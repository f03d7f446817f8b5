"""Data sets of made-up photographs, and the answers to their queries, computed from the whole matrix of scores."""

import numpy as np

from pipeline.source.entry import ImageEntry
from query.evaluation.data.data_set import DataSet
from query.evaluation.ranking.answers import Answers


def unit(vectors_NE):
    """Rows of length 1, float32."""
    return (vectors_NE / np.linalg.norm(vectors_NE, axis=1, keepdims=True)).astype(np.float32)


def photographs(num_images, per_image, keys=None, name="small"):
    """A data set of captions, so many for each image but the last, which has none.

    `keys` names some images otherwise than `0.jpg`, `1.jpg`, ...
    """
    named = [(keys or {}).get(number, f"{number}.jpg") for number in range(num_images)]
    texts = np.arange((num_images - 1) * per_image)
    return DataSet(
        name=name,
        kind="captions",
        location="nowhere",
        entries=[ImageEntry(key, f"file:///{key}", 0, 0) for key in named],
        num_own=num_images,
        titles=[f"caption {number}" for number in texts],
        prompts=[[f"caption {number}"] for number in texts],
        pairs_P2=np.stack([texts, texts // per_image], axis=1),
        grades_P=np.ones(len(texts), np.float32),
        counts={},
    )


def answers_of(texts_QE, images_NE, tables, most=100):
    """The answers of both tasks, by task. Every image of its own asks for texts, even one that has none."""
    texts, images = tables.pairs_P2.T
    return {
        "image_retrieval": _answers(texts_QE @ images_NE.T, texts, images, most),
        "text_retrieval": _answers(images_NE[: tables.num_own] @ texts_QE.T, images, texts, most),
    }


def _answers(scores_QN, queries_P, items_P, most):
    right_QN = np.zeros(scores_QN.shape, bool)
    right_QN[queries_P, items_P] = True
    best_Q1 = np.where(right_QN, scores_QN, -np.inf).max(axis=1, keepdims=True)
    best_Q1[best_Q1 == -np.inf] = np.nan
    tied_QN = np.abs(scores_QN - best_Q1) <= 1e-6
    above_QN = scores_QN > best_Q1 + 1e-6
    order_QK = np.argsort(-scores_QN, axis=1, kind="stable")[:, :most]
    missing = ((0, 0), (0, most - order_QK.shape[1]))
    strict_Q = (~right_QN & (above_QN | tied_QN)).sum(axis=1)
    return Answers(
        best_Q=best_Q1[:, 0].astype(np.float32),
        above_Q=(~right_QN & above_QN).sum(axis=1).astype(np.int32),
        tied_Q=(~right_QN & tied_QN).sum(axis=1).astype(np.int32),
        tied_right_Q=(right_QN & tied_QN).sum(axis=1).astype(np.int32),
        above_epsilon_Q=(~right_QN & (scores_QN > best_Q1 + 1e-3)).sum(axis=1).astype(np.int32),
        unlike_Q=strict_Q.astype(np.int32),
        ids_QK=np.pad(order_QK.astype(np.int32), missing, constant_values=-1),
        scores_QK=np.pad(np.take_along_axis(scores_QN, order_QK, axis=1), missing, constant_values=-np.inf),
    )
