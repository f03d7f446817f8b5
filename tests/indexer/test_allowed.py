"""Searches that may find only some rows: small sets are compared, large ones narrow the index's search."""

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


@pytest.mark.parametrize("exact_rows", [10, 100_000], ids=["by the index", "by comparing"])
@pytest.mark.parametrize("recipe", ["Flat", "IVF32,SQ8", "IVF32,PQ16x4fs", "RR32,IVF32,RaBitQfs2", "HNSW16,SQfp16"])
@pytest.mark.parametrize("allowed_share", [0.01, 0.1, 0.5])
def test_only_allowed_rows_are_found(store, vectors, queries, monkeypatch, recipe, allowed_share, exact_rows):
    monkeypatch.setattr(indexer.searcher, "EXACT_ROWS", exact_rows)
    build_index(IndexSettings(store=store.root, recipe=recipe), lambda view: queries)
    ids = ids_of(ROWS, PER_SHARD)
    add_tombstones(store, ids[::7].tolist(), DELETED)
    allowed = np.random.default_rng(1).choice(ids, int(allowed_share * ROWS), replace=False)
    live = np.setdiff1d(allowed, ids[::7])
    scores, found = open_index(StoreView.open(store.root)).search(queries.proving_QE, 10, allowed_ids=allowed)
    assert found.shape == (len(queries.proving_QE), min(10, len(live)))
    assert np.isin(found, live).all()
    rows = np.isin(ids, live)
    truth = queries.proving_QE @ vectors[rows].T
    true_ids = ids[rows][np.argsort(-truth, axis=1)[:, :10]]
    recall = np.mean([np.isin(row, true).mean() for row, true in zip(found, true_ids, strict=True)])
    assert recall >= 0.99
    assert (np.diff(scores, axis=1) <= 0).all()


def test_no_allowed_row_gives_no_hit(store, queries):
    build_index(IndexSettings(store=store.root))
    scores, ids = open_index(StoreView.open(store.root)).search(queries.proving_QE[:2], 5, allowed_ids=np.array([-4]))
    assert scores.shape == ids.shape == (2, 0)
