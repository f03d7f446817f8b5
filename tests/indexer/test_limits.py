"""What a user can meet at the edges: recipes FAISS cannot build or filter, few rows, changed flags, newer indexes."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import indexer.build
from indexer.__main__ import main
from indexer.build import build_index
from indexer.building.plan import FOLDER, BuildPlan
from indexer.manifest import MANIFEST_FILE, NewerIndex
from indexer.opening import open_index
from indexer.proof.query_file import iterate_query_vectors
from indexer.recipes.recipe import parse_recipe
from indexer.searcher import EXACT_ROWS
from indexer.settings import IndexSettings
from pipeline.errors import ConfigError, StoreError
from pipeline.store.tombstones import DELETED, add_tombstones
from pipeline.store.view import StoreView
from tests.indexer.conftest import DIM, PER_SHARD, ROWS
from tests.kit.vector_store import add_vectors, ids_of, unit_vectors, vector_store


@pytest.mark.parametrize("recipe", ["PQ16x4fs", "RaBitQfs4", "IVF4,RQ4x4"])
def test_an_index_that_cannot_leave_rows_out_is_passed_by_when_rows_are_deleted(store, vectors, queries, recipe):
    build_index(IndexSettings(store=store.root, recipe=recipe, proof=False))
    deleted = ids_of(ROWS, PER_SHARD)[::3]
    add_tombstones(store, deleted.tolist(), DELETED)
    _, ids = open_index(StoreView.open(store.root)).search(queries.proving_QE, 10)
    assert not np.isin(ids, deleted).any()
    assert (ids >= 0).all()
    searcher = open_index(StoreView.open(store.root))
    allowed = np.setdiff1d(ids_of(ROWS, PER_SHARD), deleted)[: ROWS // 2]
    assert len(allowed) < EXACT_ROWS
    assert np.isin(searcher.search(queries.proving_QE, 10, allowed)[1], allowed).all()


def test_a_graph_that_takes_no_more_rows_is_built_anew_when_the_store_grows(tmp_path):
    store = vector_store(tmp_path / "store", unit_vectors(300, DIM), 300)
    settings = IndexSettings(store=store.root, recipe="NSG8", proof=False)
    build_index(settings)
    add_tombstones(store, [3], DELETED)
    add_vectors(store, unit_vectors(50, DIM, seed=9), 300)
    assert build_index(settings).num_vectors == 349
    _, ids = open_index(StoreView.open(store.root)).search(unit_vectors(5, DIM), 349)
    assert (np.sort(ids) >= 0).all()


def test_a_recipe_that_faiss_cannot_build_is_one_line_and_leaves_nothing_to_continue(store):
    settings = IndexSettings(store=store.root, recipe="IVF64(RCQ2x3),Flat", proof=False)
    with pytest.raises(
        ConfigError, match=r"FAISS cannot build IVF64\(RCQ2x3\),Flat of 3000 vectors \(not applicable\)"
    ):
        build_index(settings)
    assert build_index(IndexSettings(store=store.root, proof=False)).manifest.recipe == "SQfp16"


def test_more_lists_than_vectors_leave_nothing_to_continue(store):
    with pytest.raises(StoreError, match="3001 lists for 3000 vectors"):
        build_index(IndexSettings(store=store.root, recipe="IVF3001,Flat", proof=False))
    assert build_index(IndexSettings(store=store.root, proof=False)).manifest.recipe == "SQfp16"


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [("HNSW16_PQ8", "for Euclidean distances alone"), ("foo", r"dimensions \(could not parse index string foo\)")],
)
def test_a_recipe_that_compares_otherwise_or_means_nothing_is_refused_in_plain_words(recipe, reason):
    with pytest.raises(ConfigError, match=reason):
        parse_recipe(recipe, 32)


def test_an_empty_recipe_is_refused():
    with pytest.raises(ValueError, match="at least 1 character"):
        IndexSettings(store="store", recipe="")


def test_lists_give_as_many_hits_as_are_asked_for(store, queries):
    build_index(IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False))
    searcher = open_index(StoreView.open(store.root))
    one_list = searcher.point.model_copy(update={"effort": 1})
    _, ids = searcher.search(queries.proving_QE[:5], ROWS, point=one_list)
    assert (np.sort(ids, axis=1) == ids_of(ROWS, PER_SHARD)).all()


def test_flags_that_change_what_is_wanted_begin_anew(store):
    plan = BuildPlan(
        recipe="SQfp16", num_lists=0, parts={}, deleted_sha256="", number=0, num_train=1, iterations=1, chunk_rows=1,
        threads=1, seed=1, simd="", faiss_version="", asked=IndexSettings(store=store.root).asked,
    )  # fmt: skip

    def continues(**flags):
        return plan.is_for({}, "", IndexSettings(store=store.root, **flags).asked)

    assert continues()
    assert continues(threads=2)
    assert continues(recipe="SQfp16")
    assert not continues(recipe="Flat")
    assert not continues(seed=2)
    assert not continues(max_index_memory="600M")
    assert not continues(min_recall=0.99)


def test_an_index_of_a_newer_version_is_replaced_only_if_a_rebuild_is_asked_for(store):
    build_index(IndexSettings(store=store.root, proof=False))
    path = store.index_dir / MANIFEST_FILE
    newer = path.read_text().replace('"schema_version": 2', '"schema_version": 3')
    path.write_text(newer)
    with pytest.raises(NewerIndex, match="schema version 3"):
        build_index(IndexSettings(store=store.root, proof=False))
    assert path.read_text() == newer
    assert build_index(IndexSettings(store=store.root, proof=False, rebuild=True)).action == "built"


def test_limits_do_not_change_an_index_that_exists_and_this_is_said(store):
    build_index(IndexSettings(store=store.root, proof=False))
    report = build_index(IndexSettings(store=store.root, proof=False, max_build_memory="600M"))
    assert report.notes == ["its recipe stays as it was; to choose one within these limits, pass --rebuild"]


@pytest.mark.parametrize("left", [0, 1, 4])
def test_a_tuned_index_of_few_rows_is_proven(store, queries, left):
    build_index(IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False))
    add_tombstones(store, ids_of(ROWS, PER_SHARD)[left:].tolist(), DELETED)
    report = build_index(IndexSettings(store=store.root, recipe="IVF32,SQ8"), lambda view: queries)
    assert report.num_vectors == left
    assert report.manifest.proof.is_proven


def test_a_damaged_manifest_of_the_earlier_format_is_one_line(store):
    store.index_dir.mkdir(exist_ok=True)
    (store.index_dir / MANIFEST_FILE).write_text('{"schema_version": 1}')
    with pytest.raises(StoreError, match="damaged; run `clipsieve index"):
        open_index(StoreView.open(store.root))


def test_a_full_disk_while_rows_are_assigned_names_the_folder(store, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(indexer.build, "build_lists", full)
    with pytest.raises(StoreError, match="No space left on device; free up space"):
        build_index(IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False))
    assert (store.index_dir / FOLDER).is_dir()  # to continue when there is space


def test_queries_of_any_size_are_brought_to_unit_length(tmp_path):
    vectors = unit_vectors(3, DIM).astype(np.float64)
    pq.write_table(pa.table({"embedding": list(vectors * [[1e200], [1e-200], [1]])}), tmp_path / "q.parquet")
    [found] = iterate_query_vectors(tmp_path / "q.parquet", DIM)
    np.testing.assert_allclose(found, vectors, atol=1e-6)


@pytest.mark.parametrize("flag", ["--check", "--show", "--dry-run", "--json"])
def test_the_small_command_builds_nothing_where_it_was_asked_for_something_else(store, capsys, flag):
    assert main([str(store.root), flag]) == 2
    assert f"{flag} is for `clipsieve index`" in capsys.readouterr().err
    assert not (store.index_dir / MANIFEST_FILE).exists()


@pytest.mark.parametrize("flag", ["check", "dry_run"])
def test_a_plot_is_refused_where_none_would_be_drawn(flag):
    with pytest.raises(ValueError, match="--plot draws the curve"):
        IndexSettings(store="store", plot="x.png", **{flag: True})


@pytest.mark.parametrize("name", ["rows-00000.arrows", "rows-00000.ids"])
def test_damaged_rows_that_a_search_meets_are_one_line(store, queries, name):
    build_index(IndexSettings(store=store.root, proof=False))
    path = store.index_dir / name
    data = bytearray(path.read_bytes())
    data[9:50] = b"\xff" * 41
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged; run `clipsieve index --check`"):
        _key_of_every_row(store, queries.proving_QE[:1])


def _key_of_every_row(store, queries_QE):
    searcher = open_index(StoreView.open(store.root))
    return searcher.metadata(searcher.search(queries_QE, ROWS)[1].ravel(), ["key"])
