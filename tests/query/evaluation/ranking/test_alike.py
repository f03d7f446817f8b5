"""Groups of near-duplicates."""

import numpy as np
import pytest

from query.evaluation.ranking import alike
from query.evaluation.ranking.alike import near_duplicate_groups


def plain_groups(vectors, cosine):
    groups = []
    for number, vector in enumerate(vectors):
        leaders = [first for first in range(number) if groups[first] == first and vectors[first] @ vector >= cosine]
        groups.append(leaders[0] if leaders else number)
    return groups


@pytest.mark.parametrize("rows_per_block", [1, 7, 64, 2_048])
@pytest.mark.parametrize("cosine", [0.3, 0.7, 0.95])
def test_groups_are_those_of_one_vector_after_another(rng, monkeypatch, rows_per_block, cosine):
    monkeypatch.setattr(alike, "BLOCK_ROWS", rows_per_block)
    vectors = rng.standard_normal((10, 16))[rng.integers(0, 10, 90)] + 0.4 * rng.standard_normal((90, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = near_duplicate_groups(vectors, cosine)
    assert found.dtype == np.int64
    assert found.tolist() == plain_groups(vectors, cosine)


def test_a_chain_does_not_collapse(monkeypatch):
    monkeypatch.setattr(alike, "BLOCK_ROWS", 2)
    angles = np.radians([0, 10, 20, 30, 40])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    assert near_duplicate_groups(vectors, np.cos(np.radians(12))).tolist() == [0, 0, 2, 2, 4]


def test_without_vectors_there_are_no_groups():
    assert near_duplicate_groups(np.empty((0, 4), np.float32), 0.9).tolist() == []
