"""The public names of the packages, and what they make of their arguments."""

import inspect
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import indexer
import pipeline
import query
from indexer import build_index
from pipeline import embed
from pipeline.errors import ConfigError, InputError, StoreError
from query import Searcher, text_queries
from tests.kit.plain_embed import embed_plainly
from tests.kit.vector_store import unit_vectors, vector_store

DIM = 16


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_the_public_names():
    assert pipeline.__all__ == ["embed"]
    assert indexer.__all__ == ["build_index"]
    assert query.__all__ == ["Hit", "Hits", "Searcher", "compare", "text_queries"]
    assert all(hasattr(package, name) for package in (pipeline, indexer, query) for name in package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'serch'"):
        _ = query.serch


def test_the_public_signatures():
    assert parameters(embed) == ["source", "out", "on_tick", "on_warning", "settings"]
    assert parameters(build_index) == ["store", "queries", "text_queries", "on_step", "settings"]
    options = ["where", "unique", "min_relevance", "templates"]
    assert parameters(Searcher.open) == ["store", "partial", "device", "kept_texts"]
    assert parameters(Searcher.search) == ["query", "k", "image", "like", "vector", *options]
    assert parameters(Searcher.search_many) == ["queries", "k", *options]
    fields = ["rank", "id", "key", "uri", "score", "relevance", "caption", "duplicates", "columns"]
    assert parameters(query.Hit) == fields
    methods = {name for name, _ in inspect.getmembers(query.Hits, inspect.isfunction) if not name.startswith("_")}
    assert methods >= {"where", "like", "to_arrow", "to_pandas", "to_dict"}


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (lambda out: embed("photos", out, polcy="fast"), "embed: unknown setting 'polcy'; known: adapter, batch_size"),
        (lambda out: embed("photos", out, batch_size="x"), "embed: batch_size = 'x': input should be a valid integer"),
        (lambda out: embed("photos", out, policy="fats"), "embed: policy = 'fats': expected one of none, balanced"),
        (lambda out: embed("photos", out, dry_run=True), "embed: dry_run is for the command line; leave it out"),
        (lambda out: embed("photos", "s3://bucket/store"), "embed: out = 's3://bucket/store': expected a path"),
        (lambda out: build_index(out, bits=4), "build_index: unknown setting 'bits'; known: "),
        (lambda out: build_index(out, min_recall=2), "build_index: min_recall = 2: input should be less than"),
        (lambda out: build_index(out, show=True), "build_index: show is for the command line; leave it out"),
        (lambda out: build_index(out, recipe="Flat", max_query_ms=1), "build_index: --max-query-ms is for choosing"),
        (lambda out: build_index(out, queries="a.parquet", text_queries=text_queries), "give queries, a file of"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(tmp_path, call, fault):
    with pytest.raises(ConfigError, match=re.escape(fault)) as found:
        call(tmp_path / "store")
    assert "\n" not in str(found.value)
    assert not (tmp_path / "store").exists()


def test_a_source_and_a_store_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        embed(tmp_path / "photos", tmp_path / "store")
    with pytest.raises(StoreError, match="no store at"):
        build_index(tmp_path / "store")


def test_an_index_is_proven_with_a_file_of_vectors(tmp_path):
    store = vector_store(tmp_path / "store", unit_vectors(300, DIM), 100)
    path, steps = tmp_path / "queries.parquet", []
    pq.write_table(pa.table({"embedding": pa.array(list(unit_vectors(60, DIM, seed=3).astype(np.float16)))}), path)
    settings = {"recipe": "IVF8,SQ8", "min_recall": 0.5}
    report = build_index(str(store.root), queries=path, on_step=lambda *step: steps.append(step), **settings)
    assert report.manifest.proof.is_proven
    assert "30 vectors of queries.parquet" in report.manifest.proof.queries
    assert steps
    assert build_index(store.root, **settings).action == "unchanged"
    unproven = build_index(store.root, **settings, rebuild=True)
    assert "no text queries were given" in unproven.manifest.proof.reason


def test_an_index_is_proven_with_built_in_texts(tmp_path, photos, tiny_model):
    store = embed_plainly(photos, tmp_path / "store", tiny_model)
    report = build_index(store.root, text_queries=lambda view: text_queries(view, limit_s=2), recipe="IVF2,SQ8")
    assert "built-in text" in report.manifest.proof.queries
