"""Agreement with the baseline, against the plain definitions."""

import numpy as np
import pytest

from query.evaluation.metrics.fidelity import fidelity, rank_biased_overlaps, shared_by_depth
from query.hits.compare import rank_biased_overlap


def rankings(num_queries, num_hits, num_items, seed):
    random = np.random.default_rng(seed)
    return np.stack([random.permutation(num_items)[:num_hits] for _ in range(num_queries)])


def test_shared_by_hand():
    first, second = np.array([[3, 1, 0], [5, 6, 7]]), np.array([[1, 3, 2], [2, 3, 4]])
    assert shared_by_depth(first, second).tolist() == [[0, 2, 2], [0, 0, 0]]


@pytest.mark.parametrize("num_items", [12, 40])
def test_overlap_and_rank_biased_overlap_as_in_search(num_items):
    first, second = rankings(50, 12, num_items, 0), rankings(50, 12, num_items, 1)
    shared = shared_by_depth(first, second)
    plain = [[len({*a[:d]} & {*b[:d]}) for d in range(1, 13)] for a, b in zip(first, second, strict=True)]
    assert shared.tolist() == plain
    expected = [rank_biased_overlap(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    np.testing.assert_allclose(rank_biased_overlaps(shared), expected, rtol=1e-12)
    found = fidelity(first, second, None)
    assert found == {
        "overlap@10": pytest.approx(shared[:, 9].mean() / 10),
        "rank_biased_overlap": pytest.approx(np.mean(expected)),
    }


def test_chunks_change_nothing(monkeypatch):
    first, second = rankings(50, 12, 30, 0), rankings(50, 12, 30, 1)
    whole = shared_by_depth(first, second)
    monkeypatch.setattr("query.evaluation.metrics.fidelity._CHUNK", 7)
    assert (shared_by_depth(first, second) == whole).all()


def test_a_gallery_that_is_smaller_than_the_list():
    ids = np.array([[2, 0, 1, -1, -1], [0, 1, 2, -1, -1]])
    assert fidelity(ids, ids, None) == {"rank_biased_overlap": pytest.approx(1)}


def test_an_index_that_finds_fewer_for_some_queries():
    found, exact = np.array([[2, 0, -1, -1], [3, 1, 0, -1]]), np.array([[2, 0, 1, 3], [3, 1, 0, 2]])
    assert shared_by_depth(found, exact).tolist() == [[1, 2, 2, 2], [1, 2, 3, 3]]
    assert shared_by_depth(found, found).tolist() == [[1, 2, 2, 2], [1, 2, 3, 3]]


def test_quantiles_of_cosines():
    ids, cosines = np.array([[0, 1]]), np.linspace(0, 1, 101, dtype=np.float32)
    found = fidelity(ids, ids, cosines)
    wanted = {"cosine_mean": 0.5, "cosine_p5": 0.05, "cosine_p50": 0.5, "cosine_min": 0.0}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
