"""Every recipe: exact scores, the same bytes after kills, an index that serves until its successor is complete."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from indexer.build import build_index
from indexer.building.plan import FOLDER, PLAN_FILE, read_plan, sample_positions
from indexer.manifest import MANIFEST_FILE, read_manifest
from indexer.opening import open_index
from indexer.recipes.point import OperatingPoint
from indexer.recipes.recipe import Kind, parse_recipe
from indexer.settings import IndexSettings
from pipeline.durable.lock import store_lock
from pipeline.errors import ConfigError, StoreError, StoreLocked
from pipeline.store.view import StoreView
from tests.indexer.conftest import DIM, PER_SHARD, ROWS
from tests.kit.vector_store import ids_of, vector_store

RECIPES = [
    "Flat", "SQfp16", "IVF32,SQfp16", "IVF32,SQ8", "IVF32,PQ16x4fs", "RR32,IVF32,RaBitQfs2", "RR32,IVF32,RaBitQfs4",
    "HNSW16,SQfp16", "IVF32_HNSW16,SQ8", "SQ8",
]  # fmt: skip
WIDE = OperatingPoint(effort=4096, candidates=400)


def exact(vectors, queries, k):
    scores = queries @ vectors.astype(np.float16).astype(np.float32).T
    order = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), ids_of(len(vectors), PER_SHARD)[order]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_finds_the_exact_answers_with_exact_scores(store, vectors, queries, recipe):
    report = build_index(IndexSettings(store=store.root, recipe=recipe, proof=False))
    searcher = open_index(StoreView.open(store.root))
    scores, ids = searcher.search(queries.proving_QE, 10, point=WIDE)
    true_scores, true_ids = exact(vectors, queries.proving_QE, 10)
    assert np.mean([np.isin(row, true).mean() for row, true in zip(ids, true_ids, strict=True)]) > 0.999
    same = ids == true_ids
    np.testing.assert_allclose(scores[same], true_scores[same], atol=2e-6)
    assert report.manifest.recipe == recipe


def test_one_query_and_many_queries_get_the_same_answers(store, queries):
    build_index(IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False))
    searcher = open_index(StoreView.open(store.root))
    scores, ids = searcher.search(queries.proving_QE, 7)
    for row in range(20):
        one = searcher.search(queries.proving_QE[row : row + 1], 7)
        assert (one[1][0] == ids[row]).all()
        np.testing.assert_allclose(one[0][0], scores[row], rtol=1e-5)


def test_hits_have_their_metadata(store, queries):
    build_index(IndexSettings(store=store.root))
    _, ids = open_index(StoreView.open(store.root)).search(queries.proving_QE[:3], 4)
    rows = open_index(StoreView.open(store.root)).metadata(ids.ravel(), ["key", "caption", "width"])
    shards, places = ids.ravel() // (2 * PER_SHARD), ids.ravel() % (2 * PER_SHARD)
    assert rows.to_pylist() == [
        {"key": f"{shard}/{row}.jpg", "caption": f"caption {row}", "width": 100 + row}
        for shard, row in zip(shards, places, strict=True)
    ]


BUILD = """
import os, signal, sys
from pathlib import Path
from indexer.build import build_index
from indexer.settings import IndexSettings
import indexer.build
indexer.build.GRAPH_CHUNK_ROWS, indexer.build.CHUNK_ROWS = 1_000, 1_000
calls = 0
def on_step(*step):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
build_index(IndexSettings(store=Path(sys.argv[1]), recipe=sys.argv[2], proof=False, threads=2), on_step=on_step)
"""


def build_and_die(root, recipe, at_call):
    return subprocess.run([sys.executable, "-c", BUILD, str(root), recipe, str(at_call)], stderr=subprocess.PIPE)


def files_of(store):
    return {
        path.name: path.read_bytes()
        for path in store.index_dir.iterdir()
        if path.is_file() and path.name not in (MANIFEST_FILE, "lock.json")
    }


@pytest.mark.parametrize(
    ("recipe", "calls"), [("RR32,IVF32,PQ16x4fs", (3, 8, 12, 10, 8)), ("HNSW16,SQfp16", (2, 4, 7))]
)
def test_a_build_that_is_killed_again_and_again_has_the_bytes_of_one_that_is_not(tmp_path, vectors, recipe, calls):
    undisturbed, killed = (vector_store(tmp_path / name, vectors, PER_SHARD) for name in ("one", "two"))
    assert build_and_die(undisturbed.root, recipe, 0).returncode == 0
    for call in calls:
        assert build_and_die(killed.root, recipe, call).returncode == -signal.SIGKILL
        assert read_plan(killed.index_dir / FOLDER) is not None
        assert not (killed.index_dir / MANIFEST_FILE).exists()
    assert build_and_die(killed.root, recipe, 0).returncode == 0
    assert files_of(undisturbed).keys() == files_of(killed).keys()
    assert files_of(undisturbed) == files_of(killed)
    assert not (killed.index_dir / FOLDER).exists()


def test_the_old_index_serves_while_a_new_one_is_built(store, queries):
    build_index(IndexSettings(store=store.root))
    before = open_index(StoreView.open(store.root)).search(queries.proving_QE, 5)
    seen = []

    def on_step(step, num_done, num_total):
        after = open_index(StoreView.open(store.root)).search(queries.proving_QE, 5)
        seen.append(all((one == other).all() for one, other in zip(after, before, strict=True)))

    opened = open_index(StoreView.open(store.root))
    build_index(IndexSettings(store=store.root, rebuild=True), on_step=on_step)
    assert len(seen) > 6
    assert all(seen)
    assert (opened.search(queries.proving_QE, 5)[1] == before[1]).all()  # its files are gone, but still mapped


def test_a_second_build_at_once_is_refused(store):
    store.index_dir.mkdir()
    with store_lock(store.index_dir), pytest.raises(StoreLocked, match="in use by process"):
        build_index(IndexSettings(store=store.root))


def test_another_plan_is_not_continued(store):
    assert build_and_die(store.root, "IVF32,SQ8", 9).returncode == -signal.SIGKILL
    report = build_index(IndexSettings(store=store.root, recipe="IVF16,SQ8", proof=False))
    assert (report.manifest.recipe, report.notes) == ("IVF16,SQ8", [])


def test_a_build_on_another_cpu_continues_and_says_so(store):
    assert build_and_die(store.root, "IVF32,SQ8", 9).returncode == -signal.SIGKILL
    plan = read_plan(store.index_dir / FOLDER)
    plan.model_copy(update={"simd": "ANOTHER"}).write(store.index_dir / FOLDER)
    report = build_index(IndexSettings(store=store.root, proof=False))
    assert report.manifest.recipe == "IVF32,SQ8"  # as planned, although it was not asked for again
    assert any("simd ANOTHER then" in note for note in report.notes)


def test_a_damaged_plan_is_not_continued(store):
    assert build_and_die(store.root, "IVF32,SQ8", 9).returncode == -signal.SIGKILL
    path = store.index_dir / FOLDER / PLAN_FILE
    path.write_text(path.read_text().replace("IVF32", "IVF31"))
    assert build_index(IndexSettings(store=store.root)).manifest.recipe == "SQfp16"


def test_a_truncated_file_of_rows_of_a_killed_build_is_written_again(store):
    assert build_and_die(store.root, "IVF32,SQ8", 4).returncode == -signal.SIGKILL
    path = next(store.index_dir.glob("rows-*.vectors"))
    os.truncate(path, 100)
    build_index(IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False))
    assert open_index(StoreView.open(store.root)).num_rows == ROWS


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("IVF32,Nonsense", "FAISS refuses it"),
        ("PQ7", "FAISS refuses it"),
        ("IDMap2,Flat", "leave out IDMap"),
        ("IVF32,SQ8,Refine(SQfp16)", "leave out IDMap, Refine"),
        ("HNSW32,RaBitQ", "FAISS refuses it"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused_before_the_work(store, recipe, message):
    with pytest.raises(ConfigError, match=message):
        build_index(IndexSettings(store=store.root, recipe=recipe))
    assert not (store.index_dir / MANIFEST_FILE).exists()


def test_more_lists_than_vectors_is_an_error_and_the_old_index_stays(tmp_path, vectors):
    store = vector_store(tmp_path / "store", vectors[:20], 10)
    build_index(IndexSettings(store=store.root))
    with pytest.raises(StoreError, match="has 64 lists for 20 vectors"):
        build_index(IndexSettings(store=store.root, recipe="IVF64,SQ8"))
    assert open_index(StoreView.open(store.root)).num_rows == 20


def test_kinds_of_recipes():
    kinds = {recipe: parse_recipe(recipe, DIM).kind for recipe in RECIPES}
    assert kinds["Flat"] is kinds["SQfp16"] is Kind.EXACT
    assert kinds["HNSW16,SQfp16"] is Kind.GRAPH
    assert kinds["SQ8"] is Kind.OTHER
    assert {kinds[recipe] for recipe in RECIPES if "IVF" in recipe} == {Kind.LISTS}


@pytest.mark.parametrize(
    "damage", [lambda row: row * np.nan, lambda row: row * 0, lambda row: row * 1.5], ids=["nan", "zero", "long"]
)
def test_vectors_that_are_not_unit_vectors_are_an_error(tmp_path, vectors, damage):
    wrong = vectors[:100].copy()
    wrong[57] = damage(wrong[57])
    store = vector_store(tmp_path / "store", wrong, 40)
    with pytest.raises(StoreError, match=r"part-00001\.parquet holds 1 vectors .* \(the first is id 97, length"):
        build_index(IndexSettings(store=store.root))


def test_a_sample_is_spread_over_all_rows():
    positions = sample_positions(1_000, 100, seed=3)
    assert (positions // 10 == np.arange(100)).all()
    assert (sample_positions(1_000, 100, seed=3) == positions).all()
    assert (sample_positions(5, 100, seed=3) == np.arange(5)).all()


def test_a_store_of_a_few_images_and_of_none_that_could_be_embedded(tmp_path, vectors):
    store = vector_store(tmp_path / "few", vectors[:1], 10)
    build_index(IndexSettings(store=store.root))
    scores, ids = open_index(StoreView.open(store.root)).search(vectors[:2], 10)
    assert ids.tolist() == [[0], [0]]
    np.testing.assert_allclose(scores[0], 1, atol=1e-3)


def test_manifest_is_plain_json_and_says_what_was_done(store):
    report = build_index(IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False))
    found = json.loads((store.index_dir / MANIFEST_FILE).read_text())
    assert found["environment"].keys() == {"faiss", "simd", "threads"}
    assert {"rows", "k-means", "lists", "codes"} <= found["seconds"].keys()
    assert read_manifest(StoreView.open(store.root)) == report.manifest
