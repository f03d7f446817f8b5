"""Recall is measured with text queries against exact search; falling short is an error that keeps the index."""

import time

import faiss
import numpy as np
import pytest

from indexer.build import build_index
from indexer.opening import open_index
from indexer.proof.curve import latency_ms, measure, recall_per_query
from indexer.proof.truth import exact_search
from indexer.proof.tuning import tune
from indexer.recipes.point import OperatingPoint
from indexer.rows.collect import collect
from indexer.rows.mapped import MappedRows
from indexer.settings import IndexSettings
from pipeline.errors import NotProven
from pipeline.store.view import StoreView


@pytest.fixture
def rows(store):
    view = StoreView.open(store.root)
    return MappedRows(store.root, collect(view, sorted(view.committed), 0, store.root, store.root / "state.json"))


def test_truth_is_exact_in_any_number_of_chunks(rows, vectors, queries, monkeypatch):
    monkeypatch.setattr("indexer.rows.mapped.CHUNK_BYTES", 70_000)  # 546 rows, across the shards
    scores, positions = exact_search(rows, queries.proving_QE, 100)
    exact = queries.proving_QE @ vectors.astype(np.float16).astype(np.float32).T
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :100], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(exact, positions, 1), scores, atol=1e-6)
    is_dead = np.zeros(len(vectors), bool)
    is_dead[positions[:, 0]] = True
    assert not is_dead[exact_search(rows, queries.proving_QE, 100, is_dead)[1]].any()


def test_truth_of_more_results_than_rows(rows, queries):
    is_dead = np.ones(3_000, bool)
    is_dead[:4] = False
    scores, positions = exact_search(rows, queries.proving_QE[:2], 6, is_dead)
    assert (positions[:, 4:] == -1).all()
    assert np.isneginf(scores[:, 4:]).all()


def test_recall_of_some_hits():
    found, true = np.array([[1, 2, 3], [9, 8, 7]]), np.array([[3, 1, 5], [9, 8, 7]])
    assert recall_per_query(found, true, 3).tolist() == [2 / 3, 1.0]
    assert recall_per_query(found, true, 1).tolist() == [0.0, 1.0]


def test_a_tie_counts_where_ids_differ(queries):
    true = np.arange(10)[None], np.linspace(1, 0.1, 10, dtype=np.float32)[None]
    other = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8, 77]])
    found = measure(
        OperatingPoint(), lambda queries, k: (true[1][:, :k], other[:, :k]), np.ones((1, 3)), (true[1], true[0]), False
    )
    assert (found.recall_at_10.mean, found.tie_recall_at_10) == (0.9, 1.0)


def test_tuning_finds_the_least_effort_and_the_cheapest_candidates():
    """A search that finds a true row if its number is below a bound that grows with effort and candidates."""
    true = np.tile(np.arange(10), (50, 1))

    def search_at(point):
        def search(queries, k):
            good = min(10, point.effort // 10, point.candidates // 10)
            found = np.where(np.arange(10) < good, np.arange(10), 99 + np.arange(10))
            return np.zeros((len(queries), 10)), np.tile(found, (len(queries), 1))

        return search

    point, recall = tune(search_at, np.zeros((50, 4), np.float32), true, 0.8, 1_000, [50, 100])
    assert (recall, point.candidates) == (pytest.approx(0.8), 100)
    assert 80 <= point.effort <= 83
    point, recall = tune(search_at, np.zeros((50, 4), np.float32), true, 0.8, 70, [50, 100])
    assert (recall, point.effort, point.candidates) == (pytest.approx(0.7), 70, 100)


def test_tuning_ends_where_more_candidates_only_take_longer():
    true, tried = np.tile(np.arange(10), (50, 1)), []

    def search_at(point):
        def search(queries, k):
            tried.append(point.candidates)
            time.sleep(point.candidates / 1e4)
            return np.zeros((len(queries), 10)), true[: len(queries)]

        return search

    point, _ = tune(search_at, np.zeros((5, 4), np.float32), true[:5], 0.8, 8, [10, 100, 1_000])
    assert (point.candidates, max(tried)) == (10, 100)


def test_a_graph_is_tuned_between_the_numbers_of_candidates():
    """efSearch is never below the number of candidates, so less effort than that changes nothing."""
    true = np.tile(np.arange(10), (50, 1))

    def search_at(point):
        def search(queries, k):
            effort = max(point.effort, point.candidates)
            time.sleep(effort / 1e5)
            found = np.where(np.arange(10) < 5 + effort // 10, np.arange(10), 99)
            return np.zeros((len(queries), 10)), np.tile(found, (len(queries), 1))

        return search

    point, recall = tune(search_at, np.zeros((50, 4), np.float32), true, 0.8, 1_000, [10, 50, 100], is_graph=True)
    assert (recall, point.candidates) == (pytest.approx(0.8), 10)
    assert 30 <= point.effort <= 32


def test_an_index_is_tuned_on_some_queries_and_proven_on_others(store, queries):
    report = build_index(IndexSettings(store=store.root, recipe="IVF64,SQ8", min_recall=0.9), lambda view: queries)
    manifest = report.manifest
    assert manifest.proof.is_proven
    assert manifest.proof.queries == "400 test queries"
    assert 1 <= manifest.point.effort < 64
    chosen = manifest.proof.at(manifest.point)
    assert 0.9 <= chosen.recall_at_10.mean < 1
    assert chosen.recall_at_10.low <= chosen.recall_at_10.mean <= chosen.recall_at_10.high
    efforts = [measured.point.effort for measured in manifest.proof.text]
    recalls = [measured.recall_at_10.mean for measured in manifest.proof.text]
    assert efforts == sorted(efforts)
    assert recalls == sorted(recalls)
    assert len(manifest.proof.image) == len(efforts)
    report.refuse_short(IndexSettings(store=store.root, min_recall=0.9))
    found = open_index(StoreView.open(store.root)).search(queries.proving_QE, 10)[1]
    true = exact_search(open_index(StoreView.open(store.root)).rows, queries.proving_QE, 10)[1]
    again = open_index(StoreView.open(store.root)).rows.ids(true)
    assert recall_per_query(found, again, 10).mean() == pytest.approx(chosen.recall_at_10.mean)


def test_coarse_codes_are_tuned_with_as_many_candidates_as_the_planner_counts_on(store, queries):
    settings = IndexSettings(store=store.root, recipe="IVF8,PQ1x4fs", min_recall=0.995)
    report = build_index(settings, lambda view: queries)
    assert report.manifest.proof.is_proven
    assert report.manifest.point.candidates > 400


def test_an_index_that_falls_short_is_an_error_that_keeps_it(store, queries, monkeypatch):
    monkeypatch.setattr("indexer.prove.CANDIDATES", (12,))
    settings = IndexSettings(store=store.root, recipe="IVF32,PQ2x4fs", min_recall=0.999)
    few = OperatingPoint(effort=32, candidates=12)
    report = build_index(settings, lambda view: queries)
    assert not report.manifest.proof.is_proven
    assert report.manifest.point == few  # the best that it can do
    with pytest.raises(NotProven, match=r"recall@10 0\.\d+ .*, 0.999 asked; measured at its best point") as raised:
        report.refuse_short(settings)
    assert raised.value.exit_code == 4
    assert open_index(StoreView.open(store.root)).search(queries.proving_QE, 10)[1].shape == (200, 10)


def test_without_text_queries_it_is_an_error_only_if_a_recall_was_asked_for(store):
    settings = IndexSettings(store=store.root, recipe="IVF32,SQ8")
    report = build_index(settings, lambda view: "its model cannot be loaded")
    assert report.manifest.proof.reason == "its model cannot be loaded"
    report.refuse_short(settings)
    with pytest.raises(NotProven, match="its model cannot be loaded; give --queries"):
        report.refuse_short(IndexSettings(store=store.root, min_recall=0.9))


def test_an_exact_index_needs_no_proof(store):
    def fail(view):
        raise AssertionError("no queries are needed")

    report = build_index(IndexSettings(store=store.root, min_recall=1.0), fail)
    assert (report.manifest.proof.is_proven, report.manifest.recipe) == (True, "SQfp16")


def test_a_higher_recall_measures_an_index_again_without_building_it(store, queries):
    build_index(IndexSettings(store=store.root, recipe="IVF64,SQ8", min_recall=0.8), lambda view: queries)
    report = build_index(IndexSettings(store=store.root, min_recall=0.97), lambda view: queries)
    assert (report.action, report.manifest.proof.min_recall) == ("unchanged", 0.97)
    assert report.manifest.proof.is_proven


def test_a_first_index_is_searchable_while_it_is_proven_and_keeps_its_files_if_that_is_killed(store, queries):
    settings = IndexSettings(store=store.root, recipe="IVF32,SQ8", min_recall=0.9)

    def stop(step, num_done, num_total):
        if step == "proof":
            assert "not proven" in open_index(StoreView.open(store.root)).warning
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(settings, lambda view: queries, stop)
    report = build_index(settings, lambda view: queries)
    assert (report.action, report.manifest.proof.is_proven) == ("unchanged", True)


def test_latency_is_measured_on_one_thread():
    threads = []
    found = latency_ms(lambda queries, k: threads.append(faiss.omp_get_max_threads()), np.zeros((3, 2)))
    assert (len(found), set(threads)) == (3, {1})
    assert faiss.omp_get_max_threads() >= 1
