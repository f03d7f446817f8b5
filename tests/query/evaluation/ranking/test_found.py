"""The answers of an index: those of the kernel if it finds everything, and the last rank for what it did not find."""

import numpy as np
import pytest

from query.evaluation.ranking.found import answers_found
from query.evaluation.ranking.rank import answers

FIELDS = ("above_Q", "tied_Q", "tied_right_Q", "above_epsilon_Q", "unlike_Q")


@pytest.fixture
def gallery(rng):
    """Vectors with repeats, so that scores are tied."""
    vectors = rng.standard_normal((25, 16))[rng.integers(0, 25, 80)]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def queries(rng):
    """The last five have no right item."""
    vectors = rng.standard_normal((40, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def pairs(rng):
    """One to three right items for each query."""
    return np.array([(query, item) for query in range(35) for item in sorted(rng.choice(80, 1 + query % 3, False))])


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_an_index_that_finds_everything_has_the_answers_of_the_kernel(gallery, queries, pairs, epsilon):
    alike = np.arange(80) // 2
    exact = answers(queries, gallery, pairs, k=80, epsilon=epsilon, alike_N=alike)
    found = answers_found(exact.ids_QK, exact.scores_QK, pairs, 80, k=100, epsilon=epsilon, alike_N=alike)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(exact, name))
    np.testing.assert_allclose(found.best_Q, exact.best_Q, atol=1e-6)
    np.testing.assert_array_equal(found.ids_QK[:, :80], exact.ids_QK)
    assert (found.ids_QK[:, 80:] == -1).all()
    assert np.isneginf(found.scores_QK[:, 80:]).all()


def test_what_is_not_found_ranks_last():
    ids = np.array([[3, 1, -1], [3, 1, 0], [2, 3, 1]])
    scores = np.array([[0.9, 0.8, 0.0], [0.9, 0.8, 0.8], [0.9, 0.5, 0.4]], np.float32)
    pairs = np.array([(0, 0), (1, 0), (2, 0)])
    found = answers_found(ids, scores, pairs, 50, k=5, alike_N=np.array([0, 1, 0, *range(3, 50)]))
    assert found.above_Q.tolist() == [50, 1, 50]
    assert found.tied_Q.tolist() == [0, 1, 0]
    assert np.isnan(found.best_Q).tolist() == [True, False, True]
    assert found.unlike_Q.tolist() == [50, 2, 0]  # item 2 is like item 0, and is first
    assert found.ids_QK[0].tolist() == [3, 1, -1, -1, -1]


def test_a_missing_item_is_nobody_s_answer():
    # -1 of query 1 would be item 49 of query 0 if ids were counted on
    found = answers_found(np.array([[0, 1], [2, -1]]), np.ones((2, 2), np.float32), np.array([(0, 49)]), 50, k=2)
    assert found.above_Q.tolist() == [50, 50]
