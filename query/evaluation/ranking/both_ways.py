"""Rank both ways: the images for each text, and the texts for each image.

Shapes: Q texts, N images, P pairs of a text and an image that answers it, E embedding width.
"""

import numpy as np

from query.evaluation.ranking.answers import Answers
from query.evaluation.ranking.rank import answers

TEXT_TO_IMAGE = "image_retrieval"
IMAGE_TO_TEXT = "text_retrieval"
"""Names of the tasks, as in CLIP_benchmark."""


def both_ways(
    texts_QE: np.ndarray,
    images_NE: np.ndarray,
    pairs_P2: np.ndarray,
    num_own: int,
    *,
    alike_N: np.ndarray,
    epsilon: float,
    k: int = 100,
) -> dict[str, Answers]:
    """The answers of both tasks. Only the first `num_own` images ask for texts; one without a text has no best answer.

    Args:
        texts_QE: Unit vectors.
        images_NE: Unit vectors, those of the data set's own images first.
        pairs_P2: (text, image).
        num_own: Images that are not distractors.
        alike_N: The number of each image's group of near-duplicates. Texts of the images of a group are alike, too.
        epsilon: See `Answers.above_epsilon_Q`.
        k: How many of the best items to keep.
    """
    shared = {"k": k, "epsilon": epsilon}
    alike_Q = alike_texts(pairs_P2, alike_N, len(texts_QE))
    return {
        TEXT_TO_IMAGE: answers(texts_QE, images_NE, pairs_P2, alike_N=alike_N, **shared),
        IMAGE_TO_TEXT: answers(images_NE[:num_own], texts_QE, pairs_P2[:, ::-1], alike_N=alike_Q, **shared),
    }


def alike_texts(pairs_P2: np.ndarray, alike_N: np.ndarray, num_texts: int) -> np.ndarray:
    """The number of each text's group, int64 [Q]: that of its image, if only one answers it; otherwise its own."""
    is_single_P = np.bincount(pairs_P2[:, 0], minlength=num_texts)[pairs_P2[:, 0]] == 1
    groups_Q = len(alike_N) + np.arange(num_texts)
    groups_Q[pairs_P2[is_single_P, 0]] = alike_N[pairs_P2[is_single_P, 1]]
    return groups_Q
