"""The kernel against a plain comparison of everything with everything in float64."""

import numpy as np
import pytest

from query.evaluation.ranking import rank, right_items
from query.evaluation.ranking.rank import answers
from query.evaluation.ranking.right_items import ROUNDING

COUNTS = ("above_Q", "tied_Q", "tied_right_Q", "above_epsilon_Q", "unlike_Q")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Many blocks, and a last one that is smaller, in small galleries."""
    monkeypatch.setattr(rank, "GALLERY_ROWS", 37)
    monkeypatch.setattr(rank, "QUERY_ROWS", 23)
    monkeypatch.setattr(rank, "PASS_ROWS", 10)
    monkeypatch.setattr(right_items, "_PAIRS_AT_ONCE", 11)


def unit(rng, rows, dim=32):
    vectors = rng.standard_normal((rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def plain_counts(scores, right, epsilon):
    """The counts of one query (float64 scores [N], set of right items)."""
    wrong = np.ones(len(scores), bool)
    wrong[list(right)] = False
    if not right:
        return len(scores), 0, 0, len(scores)
    best = scores[list(right)].max()
    return (
        (scores[wrong] > best + ROUNDING).sum(),
        (abs(scores[wrong] - best) <= ROUNDING).sum(),
        (scores[list(right)] >= best - ROUNDING).sum(),
        (scores[wrong] > best + max(epsilon, ROUNDING)).sum(),
    )


def check(queries, gallery, pairs, k=10, epsilon=1e-3, alike=None):
    """Compare every field of the answers with the plain ones."""
    found = answers(queries, gallery, pairs, k=k, epsilon=epsilon, alike_N=alike)
    scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    for query, own in enumerate(scores):
        right = set(pairs[pairs[:, 0] == query, 1].tolist())
        above, tied, tied_right, above_epsilon = plain_counts(own, right, epsilon)
        wide = right if alike is None else {item for item in range(len(own)) if alike[item] in set(alike[list(right)])}
        unlike = sum(plain_counts(own, wide, epsilon)[:2])
        assert [getattr(found, name)[query] for name in COUNTS] == [above, tied, tied_right, above_epsilon, unlike]
        np.testing.assert_allclose(found.best_Q[query], own[list(right)].max() if right else np.nan, atol=ROUNDING)
        order = np.lexsort((np.arange(len(own)), -own))[:k]
        ids = found.ids_QK[query]
        assert len(set(ids[: len(order)])) == len(order)
        np.testing.assert_allclose(own[ids[: len(order)]], own[order], atol=ROUNDING)
        np.testing.assert_allclose(found.scores_QK[query, : len(order)], own[order], atol=ROUNDING)
        clear = np.flatnonzero(np.diff(own[order], append=-2) < -2 * ROUNDING)  # sets are the same between clear steps
        assert all(set(ids[: stop + 1]) == set(order[: stop + 1]) for stop in clear[:-1])
        assert (ids[len(order) :] == -1).all()
        assert np.isneginf(found.scores_QK[query, len(order) :]).all()
    return found


def test_several_right_items_one_and_none(rng):
    queries, gallery = unit(rng, 60), unit(rng, 200)
    pairs = np.array([(q, i) for q in range(55) for i in sorted(rng.choice(200, 1 + q % 4, replace=False))])
    found = check(queries, gallery, pairs, k=100)
    assert (found.above_Q[55:] == 200).all()
    assert np.isnan(found.best_Q[55:]).all()


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
@pytest.mark.parametrize("half", [False, True])
def test_ties_and_duplicates(rng, half, epsilon):
    # few different vectors: nearly every item has items of the same score, right and wrong
    gallery = unit(rng, 12)[rng.integers(0, 12, 150)].astype(np.float16 if half else np.float32)
    queries = unit(rng, 50)
    pairs = np.unique(np.stack([rng.integers(0, 50, 120), rng.integers(0, 150, 120)], axis=1), axis=0)
    found = check(queries, gallery, pairs, k=40, epsilon=epsilon)
    assert (found.tied_Q > 0).sum() > 20
    assert (found.tied_right_Q > 1).any()


def test_equal_items_come_in_their_order(rng):
    gallery = np.repeat(unit(rng, 1), 100, axis=0)
    found = check(gallery[:3], gallery, np.array([(0, 5), (1, 99), (2, 0)]), k=90)
    assert (found.ids_QK == np.arange(90)).all()
    assert (found.tied_Q == 99).all()


def test_epsilon(rng):
    queries, gallery = unit(rng, 40), unit(rng, 300)
    pairs = np.stack([np.arange(40), rng.integers(0, 300, 40)], axis=1)
    wide = check(queries, gallery, pairs, epsilon=0.2)
    none = check(queries, gallery, pairs, epsilon=0.0)
    assert (wide.above_epsilon_Q < wide.above_Q).any()
    assert (none.above_epsilon_Q == none.above_Q).all()


def test_near_duplicates_of_right_items_count_as_right(rng):
    gallery = unit(rng, 120)
    gallery[60:90] = gallery[:30] + 0.02 * unit(rng, 30)  # better or worse than what they are near to
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    alike = np.where((np.arange(120) >= 60) & (np.arange(120) < 90), np.arange(120) - 60, np.arange(120))
    queries = unit(rng, 45)
    pairs = np.array([(q, i) for q in range(45) for i in sorted({q % 40, (7 * q) % 100})])
    found = check(queries, gallery, pairs, alike=alike)
    strict = found.above_Q + found.tied_Q
    assert (found.unlike_Q < strict).sum() > 5
    assert (found.unlike_Q <= strict).all()


def test_a_gallery_smaller_than_k(rng):
    check(unit(rng, 30), unit(rng, 9), np.stack([np.arange(30), np.arange(30) % 9], axis=1), k=20)


def test_no_right_items_at_all(rng):
    check(unit(rng, 5), unit(rng, 50), np.empty((0, 2), np.int64), alike=np.zeros(50, np.int64))


def test_a_mapped_gallery_in_half_precision(rng, tmp_path):
    path = tmp_path / "gallery.npy"
    np.save(path, unit(rng, 130).astype(np.float16))
    done = []
    pairs = np.stack([np.arange(40), np.arange(40)], axis=1)
    queries, gallery = unit(rng, 40), np.load(path, mmap_mode="r")
    check(queries, gallery, pairs)
    answers(queries, gallery, pairs, on_block=lambda *progress: done.append(progress))
    assert done == [(37, 130), (74, 130), (111, 130), (130, 130)]


def test_block_sizes_change_nothing(rng, monkeypatch):
    queries, gallery = unit(rng, 60), unit(rng, 500)
    pairs = np.stack([np.arange(60), rng.integers(0, 500, 60)], axis=1)
    small = answers(queries, gallery, pairs)
    monkeypatch.undo()
    large = answers(queries, gallery, pairs)
    for name in (*COUNTS, "ids_QK"):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name))
