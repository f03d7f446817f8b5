"""Metrics query by query: by hand on 4 x 8 scores, and against the plain definitions on scores with many ties."""

from itertools import permutations

import numpy as np
import pytest

from query.evaluation.metrics.per_query import accuracies_of, expected_hits, metrics_of, strict_ranks
from query.evaluation.metrics.right import right_images, right_texts
from query.evaluation.ranking.rank import answers

SCORES = np.array(
    [
        [9, 8, 7, 6, 5, 4, 3, 2],
        [9, 8, 7, 7, 7, 4, 3, 2],
        [5, 5, 5, 5, 5, 5, 5, 5],
        [1, 2, 3, 4, 5, 6, 7, 8],
    ],
    dtype=np.float32,
)
PAIRS = np.array([[0, 0], [1, 2], [1, 4], [2, 0], [3, 0], [3, 1]])
"""The best; two of the three that share ranks 3 to 5; one of eight that are equal; the last two."""
GRADES = np.array([1, 1, 3, 1, 2, 1], dtype=np.float32)


def ranked(scores_QN, pairs_P2, **more):
    """The answers to queries that score the items of a gallery so."""
    return answers(scores_QN, np.eye(scores_QN.shape[1], dtype=np.float32), pairs_P2, **more)


def right_of(scores_QN, pairs_P2, grades_P=None):
    grades_P = np.ones(len(pairs_P2), np.float32) if grades_P is None else grades_P
    return right_images(pairs_P2, grades_P, np.arange(len(scores_QN)), scores_QN.shape[1])


def measured(scores, pairs, grades=None, ks=(1, 2), **more):
    """What each query with a right item contributes to each metric, as lists."""
    scores, pairs = np.array(scores, dtype=np.float32), np.array(pairs)
    right = right_of(scores, pairs, grades)
    found = metrics_of("t", right.rows_of(ranked(scores, pairs, **more)), right, ks)
    return {name.removeprefix("t_"): metric.values_Q.tolist() for name, metric in found.items()}


@pytest.fixture(scope="module")
def by_hand():
    return measured(SCORES, PAIRS, GRADES, ks=(1, 3, 5))


def test_ranks_are_strict(by_hand):
    assert strict_ranks(ranked(SCORES, PAIRS)).tolist() == [0, 3, 7, 6]
    assert by_hand["median_rank"] == [1, 4, 8, 7]
    assert by_hand["mrr"] == [1, 1 / 4, 1 / 8, 1 / 7]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("recall@1", [1, 0, 0, 0]),
        ("recall@3", [1, 0, 0, 0]),
        ("recall@5", [1, 1, 0, 0]),
        ("recall@1(expected)", [1, 0, 1 / 8, 0]),
        # one place for three items, of which two are right
        ("recall@3(expected)", [1, 2 / 3, 3 / 8, 0]),
        ("recall@5(expected)", [1, 1, 5 / 8, 0]),
    ],
)
def test_hits_by_hand(by_hand, name, expected):
    assert by_hand[name] == pytest.approx(expected)


def test_hits_within_epsilon():
    found = measured([[0.5, 0.5005, 0.6]], [[0, 0]], epsilon=1e-3)
    assert (found["recall@1(epsilon)"], found["recall@2(epsilon)"]) == ([0], [1])
    assert (found["recall@1"], found["recall@2"]) == ([0], [0])


def test_hits_among_near_duplicates():
    found = measured([[0.5, 0.9, 0.7]], [[0, 0]], alike_N=np.array([0, 1, 0]))
    assert (found["recall@1(duplicates)"], found["recall@2(duplicates)"]) == ([0], [1])
    assert (found["recall@1"], found["recall@2"]) == ([0], [0])


def test_graded_gains_by_hand(by_hand):
    def gains(*places):
        return sum(grade / np.log2(place + 2) for place, grade in enumerate(places))

    # of the three that are equal, the wrong one comes first, then grade 1, then grade 3
    second = gains(0, 0, 0, 1, 3) / gains(3, 1)
    third, fourth = gains(0, 0, 0, 0, 0, 0, 0, 1), gains(0, 0, 0, 0, 0, 0, 1, 2) / gains(2, 1)
    assert by_hand["ndcg@10"] == pytest.approx([1, second, third, fourth])


def test_only_queries_with_several_right_answers_have_a_share():
    scores = np.tile(np.arange(20, 0, -1), (3, 1))
    pairs = [[0, 0], [1, 0], [1, 15], [2, 8], [2, 9], [2, 10], [2, 11]]
    assert measured(scores, pairs)["recall@10_p5"] == [0.5, 0.5]
    assert "recall@10_p5" not in measured(scores[:1], pairs[:1])


def test_a_query_that_nothing_answers_does_not_count():
    found = measured(SCORES, [[1, 0], [3, 7]])
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(found, 2)
    assert found["recall@1"] == [1, 1]


def test_scores_that_are_all_equal_gain_nothing_beyond_the_list():
    found = measured(np.zeros((1, 300)), [[0, 0]], ks=(10,), k=100)
    assert (found["recall@10"], found["ndcg@10"]) == ([0], [0])
    assert found["recall@10(expected)"] == pytest.approx([10 / 300])


@pytest.mark.parametrize("seed", range(5))
def test_against_the_plain_definitions(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (30, 6)).astype(np.float32)  # many ties
    is_right = random.random((30, 6)) < 0.4
    is_right[:, 0] |= ~is_right.any(axis=1)
    pairs, found_grades = np.argwhere(is_right), random.integers(1, 4, is_right.sum()).astype(np.float32)
    found = measured(scores, pairs, found_grades, ks=(1, 2, 4))
    for query in range(30):
        grades = {item: grade for (q, item), grade in zip(pairs.tolist(), found_grades, strict=True) if q == query}
        orders = [order for order in permutations(range(6)) if all(np.diff(scores[query, list(order)]) <= 0)]
        worst = min(orders, key=lambda order: [grades.get(item, 0) for item in order])
        for k in (1, 2, 4):
            is_hit = [any(item in grades for item in order[:k]) for order in orders]
            assert found[f"recall@{k}"][query] == min(is_hit)
            assert found[f"recall@{k}(expected)"][query] == pytest.approx(np.mean(is_hit))
        assert found["mrr"][query] == pytest.approx(max(1 / (worst.index(item) + 1) for item in grades))
        gained = sum(grades.get(item, 0) / np.log2(place + 2) for place, item in enumerate(worst))
        ideal = sum(grade / np.log2(place + 2) for place, grade in enumerate(sorted(grades.values(), reverse=True)))
        assert found["ndcg@10"][query] == pytest.approx(gained / ideal)
    assert (expected_hits(ranked(scores, pairs), 6) == 1).all()


def test_accuracy_by_hand():
    # image 1 is of the class with the third best score; image 2 scores all classes the same
    scores, pairs = SCORES[:3, :6], np.array([[0, 0], [1, 2], [2, 0]])
    found = accuracies_of(ranked(scores, pairs), 6)
    assert found["acc1"].values_Q.tolist() == [1, 0, 0]
    assert found["acc5"].values_Q.tolist() == [1, 1, 0]
    assert found["acc1(expected)"].values_Q.tolist() == pytest.approx([1, 0, 1 / 6])
    assert set(accuracies_of(ranked(scores[:, :3], pairs), 3)) == {"acc1", "acc1(expected)", "acc1(epsilon)"}


def test_the_texts_of_each_image():
    pairs = np.array([[0, 7], [1, 3], [2, 7], [3, 3], [3, 5]])  # text 3 is of two images
    turned = right_texts(pairs, np.array([1, 2, 3, 4, 5], dtype=np.float32), num_texts=4)
    assert turned.asked_Q.tolist() == turned.clusters_Q.tolist() == [3, 5, 7]
    assert turned.pairs_P2.tolist() == [[0, 1], [0, 3], [1, 3], [2, 0], [2, 2]]
    assert turned.grades_P.tolist() == [2, 4, 5, 1, 3]
    assert turned.num_right_Q.tolist() == [2, 1, 2]
