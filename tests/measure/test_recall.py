"""Recall on matrices that can be checked by hand."""

import numpy as np
import pytest

from pipeline.measure.recall import first_hit_ranks, neighbour_overlap, recall_at, recall_metrics

# rows are queries; with unit gallery vectors the scores are the query's coordinates
SCORES = np.array(
    [
        [0.9, 0.1, 0.2, 0.3],  # correct item 0: first
        [0.9, 0.5, 0.2, 0.6],  # correct item 1: third
        [0.1, 0.2, 0.3, 0.4],  # correct item 2: second
        [0.5, 0.5, 0.5, 0.5],  # correct item 3: ties with all, so last
    ],
    dtype=np.float32,
)


def test_ranks_by_hand():
    ranks = first_hit_ranks(SCORES, np.arange(4), np.eye(4, dtype=np.float32), np.arange(4))
    assert ranks.tolist() == [0, 2, 1, 3]
    assert [recall_at(ranks, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


def test_any_of_several_correct_items_counts():
    labels = np.array([0, 0, 1, 1])
    ranks = first_hit_ranks(SCORES, np.array([0, 0, 1, 1]), np.eye(4, dtype=np.float32), labels)
    # query 1: item 0 is also correct and ranks first; query 3: its two correct items tie with two wrong ones
    assert ranks.tolist() == [0, 0, 0, 2]


def test_query_without_a_correct_item_is_never_a_hit():
    ranks = first_hit_ranks(SCORES[:1], np.array([9]), np.eye(4, dtype=np.float32), np.arange(4))
    assert ranks.tolist() == [4]


def test_identical_embeddings_gain_nothing():
    same = np.ones((50, 3), dtype=np.float32)
    assert recall_at(first_hit_ranks(same, np.arange(50), same, np.arange(50)), 10) == 0.0


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_chunked_equals_full(chunk):
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(64, 8)), rng.normal(size=(40, 8))
    labels = rng.integers(0, 40, size=64)
    scores = queries.astype(np.float32) @ gallery.astype(np.float32).T
    order = np.argsort(-scores, axis=1)
    expected = [int(np.flatnonzero(order[q] == labels[q])[0]) for q in range(64)]
    assert first_hit_ranks(queries, labels, gallery, np.arange(40), chunk).tolist() == expected


def test_metric_names_are_those_of_clip_benchmark():
    metrics = recall_metrics({"image_retrieval": np.array([0, 7]), "text_retrieval": np.array([3, 3])})
    assert metrics["image_retrieval_recall@1"] == 0.5
    assert metrics["image_retrieval_recall@10"] == 1.0
    assert metrics["text_retrieval_recall@5"] == 1.0


def test_overlap_of_neighbours_by_hand():
    line = np.array([[1, 0], [0.9, 0.1], [0.1, 0.9], [0, 1]], dtype=np.float32)
    assert neighbour_overlap(line, line, 1) == 1.0
    assert neighbour_overlap(line, line[[0, 2, 1, 3]], 1) == 0.0
    assert neighbour_overlap(line, line[[0, 2, 1, 3]], 10) == 1.0  # there are only three other images
