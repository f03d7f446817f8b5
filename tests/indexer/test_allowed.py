"""Searches that may find only some rows: small sets are compared, large ones narrow the index's search."""

import itertools

import numpy as np
import pytest

import indexer.searcher
from indexer.build import build_index
from indexer.opening import open_index
from indexer.settings import IndexSettings
from pipeline.store.tombstones import DELETED, add_tombstones
from pipeline.store.view import StoreView
from tests.indexer.conftest import PER_SHARD, ROWS
from tests.kit.vector_store import ids_of


@pytest.mark.parametrize("recipe", ["Flat", "IVF32,SQ8", "IVF32,PQ16x4fs", "RR32,IVF32,RaBitQfs2", "HNSW16,SQfp16"])
def test_only_allowed_rows_are_found(store, vectors, queries, monkeypatch, recipe):
    build_index(IndexSettings(store=store.root, recipe=recipe, min_recall=0.99), lambda view: queries)
    add_tombstones(store, ids_of(ROWS, PER_SHARD)[::7].tolist(), DELETED)
    for exact_rows, allowed_share in itertools.product([10, 100_000], [0.001, 0.01, 0.1, 0.5]):
        monkeypatch.setattr(indexer.searcher, "EXACT_ROWS", exact_rows)
        check_share(store, vectors, queries, allowed_share)


@pytest.mark.parametrize("recipe", ["IVF64,SQ8", "RR32,IVF64,SQ8", "HNSW16,SQ8"])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_allowed_rows_away_from_the_queries_are_found(store, vectors, queries, monkeypatch, recipe, share):
    monkeypatch.setattr(indexer.searcher, "EXACT_ROWS", 10)
    build_index(IndexSettings(store=store.root, recipe=recipe, min_recall=0.99), lambda view: queries)
    searcher = open_index(StoreView.open(store.root))
    nearness_N = vectors @ queries.proving_QE.mean(axis=0)
    allowed_N = nearness_N <= np.quantile(nearness_N, share)
    found = searcher.find(queries.proving_QE, 10, allowed_N=allowed_N)[1]
    allowed = np.flatnonzero(allowed_N)
    truth = allowed[np.argsort(-queries.proving_QE @ vectors[allowed].T, axis=1)[:, :10]]
    recall = np.mean([np.isin(row, true).mean() for row, true in zip(found, truth, strict=True)])
    assert recall >= 0.99
    one_by_one = [searcher.find(query[None], 10, allowed_N=allowed_N)[1][0] for query in queries.proving_QE[:20]]
    np.testing.assert_array_equal(found[:20], one_by_one)


def check_share(store, vectors, queries, allowed_share):
    ids = ids_of(ROWS, PER_SHARD)
    allowed = np.random.default_rng(1).choice(ids, int(allowed_share * ROWS), replace=False)
    live = np.setdiff1d(allowed, ids[::7])
    searcher = open_index(StoreView.open(store.root))
    scores, found = searcher.search(queries.proving_QE, 10, allowed_ids=allowed)
    by_mask = searcher.search(queries.proving_QE, 10, allowed_N=np.isin(ids, allowed))
    np.testing.assert_array_equal(by_mask, (scores, found))
    assert found.shape == (len(queries.proving_QE), min(10, len(live)))
    assert np.isin(found, live).all()
    rows = np.isin(ids, live)
    truth = queries.proving_QE @ vectors[rows].T
    true_ids = ids[rows][np.argsort(-truth, axis=1)[:, :10]]
    recall = np.mean([np.isin(row, true).mean() for row, true in zip(found, true_ids, strict=True)])
    assert recall >= 0.99
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("allowed", [{"allowed_ids": np.array([-4])}, {"allowed_N": np.zeros(ROWS, bool)}])
def test_no_allowed_row_gives_no_hit(store, queries, allowed):
    build_index(IndexSettings(store=store.root))
    scores, ids = open_index(StoreView.open(store.root)).search(queries.proving_QE[:2], 5, **allowed)
    assert scores.shape == ids.shape == (2, 0)


def test_a_mask_is_left_as_it_is_and_ids_narrow_it(store, queries):
    build_index(IndexSettings(store=store.root))
    ids = ids_of(ROWS, PER_SHARD)
    add_tombstones(store, ids[:10].tolist(), DELETED)
    searcher = open_index(StoreView.open(store.root))
    allowed_N = np.arange(ROWS) < 20
    before_N = allowed_N.copy()
    found = searcher.search(queries.proving_QE[:2], 50, allowed_N=allowed_N)[1]
    assert (np.sort(found) == ids[10:20]).all()
    np.testing.assert_array_equal(allowed_N, before_N)
    found = searcher.search(queries.proving_QE[:2], 50, allowed_ids=ids[15:30], allowed_N=allowed_N)[1]
    assert (np.sort(found) == ids[15:20]).all()


@pytest.mark.parametrize("wrong", [np.ones(ROWS - 1, bool), np.ones(ROWS, np.int64)])
def test_a_mask_of_other_rows_is_refused(store, queries, wrong):
    build_index(IndexSettings(store=store.root))
    with pytest.raises(ValueError, match="expected bool"):
        open_index(StoreView.open(store.root)).search(queries.proving_QE[:2], 5, allowed_N=wrong)
