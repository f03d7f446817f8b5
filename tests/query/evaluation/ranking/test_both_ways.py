"""Ranking both ways: which near-duplicates texts have, and which images ask for texts."""

import numpy as np

from query.evaluation.ranking.both_ways import alike_texts, both_ways

EYE = np.eye(4, dtype=np.float32)
PAIRS = np.array([[0, 0], [1, 0], [2, 1], [3, 1], [3, 2]])


def test_texts_of_near_duplicate_images_are_alike():
    # images 0 and 1 are alike; text 3 is of two images, so it stands alone
    assert alike_texts(PAIRS, np.array([0, 0, 2]), 4).tolist() == [0, 0, 0, 6]


def test_only_own_images_ask_for_texts():
    texts, images = EYE, EYE[[0, 2, 3, 1]]
    found = both_ways(texts, images, PAIRS, 3, alike_N=np.arange(4), epsilon=1e-3)
    assert found["image_retrieval"].ids_QK.shape == (4, 100)
    assert found["text_retrieval"].ids_QK.shape == (3, 100)
    assert found["text_retrieval"].ids_QK[:, 0].tolist() == [0, 2, 3]
    assert (found["text_retrieval"].above_Q == 0).all()
    assert found["text_retrieval"].unlike_Q.tolist() == [0, 0, 0]


def test_a_text_of_a_near_duplicate_is_a_hit_of_its_own_kind():
    # image 0 is nearest to the text of image 1, which is its near-duplicate
    texts, pairs = EYE[:2], np.array([[0, 0], [1, 1]])
    images = EYE[[1, 1]]
    apart, alike = (
        both_ways(texts, images, pairs, 2, alike_N=np.array(groups), epsilon=1e-3)["text_retrieval"]
        for groups in ([0, 1], [0, 0])
    )
    assert (apart.above_Q[0], apart.unlike_Q[0], alike.unlike_Q[0]) == (1, 1, 0)


def test_an_image_without_a_text_has_no_best_answer():
    found = both_ways(EYE[:1], EYE, np.array([[0, 0]]), 2, alike_N=np.arange(4), epsilon=1e-3)
    assert np.isnan(found["text_retrieval"].best_Q).tolist() == [False, True]
