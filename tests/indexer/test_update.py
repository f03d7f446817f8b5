"""An index that is brought up to date: new shards, deleted and replaced rows, compaction; and when to rebuild."""

import numpy as np
import pytest

from indexer.build import build_index
from indexer.manifest import read_manifest
from indexer.opening import open_index
from indexer.recipes.point import OperatingPoint
from indexer.settings import IndexSettings
from pipeline.compact import compact
from pipeline.errors import StoreError, UnfinishedStore
from pipeline.settings.store import CompactSettings
from pipeline.store.tombstones import DELETED, add_tombstones
from pipeline.store.view import StoreView
from tests.indexer.conftest import DIM, PER_SHARD, ROWS
from tests.kit.vector_store import add_vectors, ids_of, unit_vectors

WIDE = OperatingPoint(effort=4096, candidates=400)
RECIPES = ["Flat", "IVF32,SQ8", "IVF32,PQ16x4fs", "RR32,IVF32,RaBitQfs2", "HNSW16,SQfp16"]
NEW = unit_vectors(200, DIM, seed=11)


def answers(store, queries, k=10):
    return open_index(StoreView.open(store.root)).search(queries, k, point=WIDE)


def exact(vectors, ids, queries, k=10):
    scores = queries @ vectors.astype(np.float16).astype(np.float32).T
    return ids[np.argsort(-scores, axis=1)[:, :k]]


def share(found, true):
    return np.mean([np.isin(row, truth).mean() for row, truth in zip(found, true, strict=True)])


@pytest.mark.parametrize("recipe", RECIPES)
def test_new_shards_are_added_and_deleted_rows_taken_out(store, vectors, queries, recipe):
    settings = IndexSettings(store=store.root, recipe=recipe, proof=False)
    build_index(settings)
    add_vectors(store, NEW, PER_SHARD)
    with pytest.raises(UnfinishedStore, match="covers 6 shards and 3000 images, the store has 7 shards and 3200"):
        open_index(StoreView.open(store.root))
    everything, ids = np.concatenate([vectors, NEW]), ids_of(ROWS + len(NEW), PER_SHARD)
    deleted = answers_before = exact(everything, ids, queries.proving_QE[:50]).ravel()
    add_tombstones(store, np.unique(deleted).tolist(), DELETED)
    report = build_index(settings)
    assert report.action == "updated"
    assert report.num_vectors == ROWS + len(NEW) - len(np.unique(deleted))
    _, found = answers(store, queries.proving_QE)
    assert not np.isin(found, answers_before).any()
    is_live = ~np.isin(ids, deleted)
    assert share(found, exact(everything[is_live], ids[is_live], queries.proving_QE)) > 0.999
    assert build_index(settings).action == "unchanged"


@pytest.mark.parametrize("recipe", RECIPES)
def test_tombstones_hold_at_the_next_search_without_an_update(store, vectors, queries, recipe):
    build_index(IndexSettings(store=store.root, recipe=recipe, proof=False))
    ids = ids_of(ROWS, PER_SHARD)
    deleted = np.random.default_rng(0).choice(ids, ROWS // 5, replace=False)
    add_tombstones(store, deleted.tolist(), DELETED)
    _, found = answers(store, queries.proving_QE)
    assert not np.isin(found, deleted).any()
    is_live = ~np.isin(ids, deleted)
    assert share(found, exact(vectors[is_live], ids[is_live], queries.proving_QE)) > 0.999
    assert open_index(StoreView.open(store.root)).num_rows == ROWS - len(deleted)


def test_an_update_appends_to_the_files_of_the_rows(store):
    build_index(IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False))
    manifest = read_manifest(StoreView.open(store.root))
    before = {name: (store.index_dir / name).read_bytes() for name in manifest.rows.names}
    add_vectors(store, NEW, PER_SHARD)
    manifest = build_index(IndexSettings(store=store.root, proof=False)).manifest
    for name, data in before.items():
        assert (store.index_dir / name).read_bytes().startswith(data)
        assert (store.index_dir / name).stat().st_size == manifest.files[name].num_bytes > len(data)
    assert {path.name for path in store.index_dir.iterdir()} == {"manifest.json", *manifest.files}


def test_compaction_keeps_the_index(store, queries):
    build_index(IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False))
    add_tombstones(store, [3, 1004], DELETED)
    compact(CompactSettings(store=store.root))
    report = build_index(IndexSettings(store=store.root, proof=False))
    assert (report.action, report.num_vectors) == ("updated", ROWS - 2)
    assert not np.isin(answers(store, queries.proving_QE, 100)[1], [3, 1004]).any()


def test_rebuild_and_another_recipe_build_anew(store):
    build_index(IndexSettings(store=store.root))
    assert build_index(IndexSettings(store=store.root)).action == "unchanged"
    assert build_index(IndexSettings(store=store.root, rebuild=True)).action == "built"
    assert build_index(IndexSettings(store=store.root, recipe="IVF16,SQ8", proof=False)).action == "built"


def test_many_deletions_make_a_rebuild_worth_it(store):
    settings = IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False)
    build_index(settings)
    add_tombstones(store, ids_of(ROWS, PER_SHARD)[: ROWS // 3].tolist(), DELETED)
    assert build_index(settings).notes == [
        "33% of the rows are deleted; `clipsieve index --rebuild` makes it smaller and faster"
    ]
    report = build_index(settings.model_copy(update={"rebuild": True}))
    assert (report.notes, report.manifest.num_rows) == ([], ROWS - ROWS // 3)


def test_growth_makes_a_rebuild_worth_it(store, vectors):
    settings = IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False)
    build_index(settings)
    add_vectors(store, unit_vectors(ROWS + 500, DIM, seed=12), PER_SHARD)
    [note] = build_index(settings).notes
    assert note.startswith("54% of the rows were added since it was built")


def test_a_full_disk_in_an_update_leaves_the_old_index(store, queries):
    build_index(IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False))
    before = answers(store, queries.proving_QE)[1]
    add_vectors(store, NEW, PER_SHARD)

    def no_space(step, num_done, num_total):
        if step == "codes":
            raise StoreError("no space")

    with pytest.raises(StoreError, match="no space"):
        build_index(IndexSettings(store=store.root, proof=False), on_step=no_space)
    partial = open_index(StoreView.open(store.root), partial=True)
    assert (partial.search(queries.proving_QE, 10, point=WIDE)[1] == before).all()
    assert build_index(IndexSettings(store=store.root, proof=False)).num_vectors == ROWS + len(NEW)
