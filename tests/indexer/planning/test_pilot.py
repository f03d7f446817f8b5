"""What a pilot measures, and how its curves are read."""

import faiss
import numpy as np
import pytest

from indexer.planning.curves import TYPICAL, cost_of, recall_of
from indexer.planning.pilot import measure_pilot

DIM = 32


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((60, DIM))
    found = centers[rng.integers(0, 60, 6_000)] + 0.8 * rng.standard_normal((6_000, DIM))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def queries(vectors):
    found = vectors[::60] + 0.1 * np.random.default_rng(1).standard_normal((100, DIM)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def pilot(vectors, queries):
    return measure_pilot(vectors, queries)


def recall(found_QK, true_QK):
    return np.mean([len(set(found) & set(true)) / 10 for found, true in zip(found_QK, true_QK, strict=True)])


def test_the_curves_ascend(pilot):
    assert (pilot.num_rows, pilot.graph_rows) == (6_000, 6_000)
    for curve in (pilot.lists, pilot.graph, *pilot.codes.values()):
        costs, recalls = zip(*curve, strict=True)
        assert list(costs) == sorted(set(costs))
        assert list(recalls) == sorted(set(recalls))
    assert pilot.lists[-1][0] <= 1
    assert pilot.codes["fp16"] == ((10.0, 1.0),)


def test_the_share_to_scan_is_what_an_index_needs(vectors, queries, pilot):
    exact = faiss.IndexFlatIP(DIM)
    exact.add(vectors)
    true_QK = exact.search(queries, 10)[1]
    index = faiss.index_factory(DIM, f"IVF{pilot.num_lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    index.train(vectors)
    index.add(vectors)
    index.nprobe = max(1, round(cost_of(pilot.lists, 0.95) * pilot.num_lists))
    assert recall(index.search(queries, 10)[1], true_QK) == pytest.approx(0.95, abs=0.04)


def test_the_candidates_to_score_are_what_a_code_needs(vectors, queries, pilot):
    exact = faiss.IndexFlatIP(DIM)
    exact.add(vectors)
    true_QK = exact.search(queries, 10)[1]
    index = faiss.index_factory(DIM, f"IVF16,PQ{DIM // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid, index.nprobe = 1, 16
    index.train(vectors)
    index.add(vectors)
    count = round(cost_of(pilot.codes["PQ4"], 0.95))
    found_QC = index.search(queries, count)[1]
    kept = np.mean([np.isin(true, found).mean() for true, found in zip(true_QK, found_QC, strict=True)])
    assert kept == pytest.approx(0.95, abs=0.04)


def test_no_time_leaves_the_typical_curves(vectors, queries):
    pilot = measure_pilot(vectors, queries, max_s=0.0)
    assert pilot.codes == TYPICAL.codes
    assert pilot.graph == TYPICAL.graph
    assert pilot.lists != TYPICAL.lists


def test_too_few_rows_to_measure(vectors, queries):
    assert measure_pilot(vectors[:999], queries) is TYPICAL
    assert measure_pilot(vectors[:1_000], queries).num_rows == 1_000


def test_reading_a_curve():
    curve = ((10.0, 0.5), (100.0, 0.9), (1_000.0, 0.99))
    for cost, value in curve:
        assert cost_of(curve, value) == pytest.approx(cost)
        assert recall_of(curve, cost) == pytest.approx(value)
    assert 10 < cost_of(curve, 0.8) < 100 < cost_of(curve, 0.95) < 1_000
    assert cost_of(curve, 0.1) == pytest.approx(10)
    assert recall_of(curve, 5) == 0.0
    assert recall_of(curve, 10_000) == pytest.approx(0.99)
    assert recall_of(((10.0, 1.0),), 5) == 1.0
