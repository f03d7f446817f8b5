"""Indexes of a gallery: built once, ranked at every point, timed in turns."""

import re

import numpy as np
import pytest

from pipeline.errors import ConfigError, StoreError
from query.evaluation.grid.keys import IndexKeys
from query.evaluation.raw.ranks import read_ranks
from query.evaluation.raw.timings import read_rounds
from query.evaluation.record import ConditionRecord
from query.evaluation.running.indexes.build import built, condition_of
from tests.kit.few_towers import FewTowers
from tests.kit.vector_store import unit_vectors

PARENT = ConditionRecord(
    key="fast-12345678",
    name="fast",
    series="ours",
    role="condition",
    model="scenes",
    image_size=64,
    precision="fp32",
    fingerprint="f" * 64,
    gmacs=1.0,
    tokens_kept=16,
)
DECOMPOSE = "decompose: {{conditions: [balanced], indexes: [{}]}}"


@pytest.fixture
def sweep(tmp_path, photos, tiny_model):
    """A sweep that has not run yet."""
    return FewTowers(tmp_path, photos, tiny_model)


@pytest.fixture
def vectors():
    """A gallery of several shards, if those are small."""
    return unit_vectors(400, 16)


@pytest.fixture
def queries():
    """Vectors of the same kind."""
    return unit_vectors(60, 16, seed=1)


def exact_ids(queries, vectors, k):
    return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]


def test_a_flat_index_finds_what_is_best(tmp_path, vectors, queries, monkeypatch):
    monkeypatch.setattr("query.evaluation.running.indexes.store.SHARD_ROWS", 150)
    index = built(tmp_path / "a", vectors, queries, PARENT, IndexKeys(recipe="Flat"))
    assert [point.effort for point in index.points] == [0]
    found = index.searcher.search(queries, 10, point=index.points[0])[1]
    np.testing.assert_array_equal(found, exact_ids(queries, vectors, 10))


def test_more_effort_finds_more(tmp_path, vectors, queries):
    index = built(tmp_path / "a", vectors, queries, PARENT, IndexKeys(recipe="IVF8,Flat", efforts=(1, 3, 8)))
    truth = exact_ids(queries, vectors, 10)
    found = [index.searcher.search(queries, 10, point=point)[1] for point in index.points]
    recalls = [np.mean([len(set(a) & set(b)) for a, b in zip(ids, truth, strict=True)]) / 10 for ids in found]
    assert recalls[0] < recalls[1] <= recalls[2] == 1


def test_without_efforts_an_index_is_tuned_by_half_of_the_queries(tmp_path, vectors, queries):
    index = built(tmp_path / "a", vectors, queries, PARENT, IndexKeys(recipe="IVF8,Flat"))
    proof = index.manifest.proof
    assert index.points == [index.manifest.point]
    assert proof.is_proven
    assert proof.queries == "half of the 60 queries of the data set"


def test_the_planner_chooses(tmp_path, vectors, queries):
    index = built(tmp_path / "a", vectors, queries, PARENT, IndexKeys(efforts=(4,)))
    assert index.manifest.recipe == "Flat"  # few vectors
    assert [point.effort for point in index.points] == [0]
    assert index.warnings("decompose.indexes.0", IndexKeys(efforts=(4,))) == [
        "decompose.indexes.0: Flat has no effort to choose, so `efforts` is not used"
    ]
    assert not index.warnings("decompose.indexes.0", IndexKeys())


def test_vectors_are_stored_as_embed_stores_them(tmp_path, vectors, queries):
    half = PARENT.model_copy(update={"precision": "bf16"})
    assert built(tmp_path / "a", vectors, queries, half, IndexKeys()).manifest.rows.dtype == "float16"
    assert built(tmp_path / "b", vectors, queries, PARENT, IndexKeys()).manifest.rows.dtype == "float32"


def test_an_index_is_opened_again(tmp_path, vectors, queries):
    keys = IndexKeys(recipe="IVF8,Flat", efforts=(1,))
    first = built(tmp_path / "a", vectors, queries, PARENT, keys)
    again = built(tmp_path / "a", vectors, queries, PARENT, keys)
    assert (first.is_new, again.is_new) == (True, False)
    assert again.manifest == first.manifest
    (tmp_path / "a" / "index" / "manifest.json").unlink()  # as if a run was killed while it was built
    assert built(tmp_path / "a", vectors, queries, PARENT, keys).is_new


def test_an_index_that_does_not_fit_is_refused(tmp_path, vectors, queries):
    with pytest.raises(StoreError, match="IVF512,Flat has 512 lists for 400 vectors"):
        built(tmp_path / "a", vectors, queries, PARENT, IndexKeys(recipe="IVF512,Flat", efforts=(1,)))


def test_each_point_is_a_condition_of_its_own(tmp_path, vectors, queries):
    index = built(tmp_path / "a", vectors, queries, PARENT, IndexKeys(recipe="IVF8,Flat", efforts=(1, 4)))
    found = [condition_of(index, point, PARENT, "") for point in index.points]
    assert [one.name for one in found] == ["fast, IVF8,Flat, nprobe 1", "fast, IVF8,Flat, nprobe 4"]
    assert len({one.key for one in found}) == 2
    assert all(one.key.isascii() and "/" not in one.key for one in found)
    assert {(one.role, one.parent, one.fingerprint) for one in found} == {("index", PARENT.key, PARENT.fingerprint)}
    assert [(one.index.recipe, one.index.effort) for one in found] == [("IVF8,Flat", 1), ("IVF8,Flat", 4)]
    assert found[0].index.num_bytes == index.manifest.num_bytes > 0


def test_a_sweep_ranks_and_times_every_point_once(sweep):
    sweep.write_grid(
        policies="[balanced]", more=DECOMPOSE.format("{recipe: 'IVF2,Flat', efforts: [1, 2]}, {recipe: Flat}")
    )
    record = sweep.run()
    found = [one for one in record.conditions if one.role == "index"]
    names = ["balanced, IVF2,Flat, nprobe 1", "balanced, IVF2,Flat, nprobe 2", "balanced, Flat"]
    assert [one.name for one in found] == names
    exact = read_ranks(sweep.out.ranks(sweep.key_of("balanced"), "photos"))["image_retrieval"]
    for one in found[1:]:  # both compare all vectors
        ranks = read_ranks(sweep.out.ranks(one.key, "photos"))
        assert list(ranks) == ["image_retrieval"]
        rank = ranks["image_retrieval"].above_Q + ranks["image_retrieval"].tied_Q
        is_seen = exact.above_Q + exact.tied_Q < 10
        np.testing.assert_array_equal(rank[is_seen], (exact.above_Q + exact.tied_Q)[is_seen])
        assert (rank[~is_seen] >= 10).all()
    assert query_keys(sweep) == [[one.key for one in found], [one.key for one in reversed(found)]]
    before = files(sweep)
    assert sweep.run() == record
    assert files(sweep) == before
    sweep.write_grid(policies="[balanced]", more=DECOMPOSE.format("{recipe: 'IVF2,Flat', efforts: [1]}"))
    (fewer,) = [one for one in sweep.run().conditions if one.role == "index"]
    assert fewer == found[0]
    assert query_keys(sweep) == [[fewer.key], [fewer.key]]  # rounds of others are not comparable
    is_timed = {name for name in before if "/query-" in name}
    assert {name: when for name, when in files(sweep).items() if name not in is_timed} == {
        name: when for name, when in before.items() if name not in is_timed
    }


def query_keys(sweep):
    return [timed.keys for timed in read_rounds(sweep.out.timings) if timed.kind == "query"]


def files(sweep):
    return {name: when for name, when in sweep.times("raw", "indexes").items() if name.endswith(".parquet")}


@pytest.mark.parametrize(
    ("recipe", "words"),
    [("Flt", "FAISS refuses it"), ("IVF13,Flat", "it has 13 lists for the 12 images of 'photos'; give a recipe of")],
)
def test_a_recipe_that_cannot_be_built_is_refused_before_anything_is_embedded(sweep, recipe, words):
    sweep.write_grid(policies="[balanced]", more=DECOMPOSE.format(f"{{recipe: 'IVF2,Flat'}}, {{recipe: '{recipe}'}}"))
    with pytest.raises(ConfigError) as caught:
        sweep.run()
    assert re.search(rf"grid.yaml, line \d+: decompose.indexes.1.recipe = '{recipe}': {words}", str(caught.value))
    assert "--recipe" not in str(caught.value)
    assert not [name for name in sweep.contents("vectors") if name.endswith(".npy")]
