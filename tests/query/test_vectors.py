"""`clipsieve search --vectors` and `python -m indexer`: how others check an index."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.build import build_index
from indexer.opening import open_index
from indexer.searcher import IndexSearcher
from indexer.settings import IndexSettings
from pipeline.errors import InputError
from pipeline.store.tombstones import DELETED, add_tombstones
from pipeline.store.view import StoreView
from query.batch import search_file
from query.queries.options import Options
from query.searcher import Searcher
from tests.kit.vector_store import unit_vectors, vector_store

DIM = 16


@pytest.fixture
def store(tmp_path):
    found = vector_store(tmp_path / "store", unit_vectors(300, DIM), 100)
    build_index(IndexSettings(store=found.root))
    return found


@pytest.fixture
def queries(tmp_path):
    vectors = unit_vectors(50, DIM, seed=4)
    return vectors, write_vectors(tmp_path / "queries.parquet", 3 * vectors)  # their length does not matter


def write_vectors(path, vectors):
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(pa.table({"embedding": column}), path)
    return path


def search_all(store, queries, out):
    return search_file(Searcher.open(store.root), queries, out, Options(k=4))


def test_every_vector_gets_its_hits_in_order(store, queries, tmp_path):
    vectors, path = queries
    add_tombstones(store, [0, 1, 2], DELETED)
    report = search_all(store, path, tmp_path / "hits.parquet")
    assert (report.num_queries, report.num_hits) == (50, 200)
    hits = pq.read_table(tmp_path / "hits.parquet")
    assert hits["query"].to_pylist() == [query for query in range(50) for _ in range(4)]
    assert hits["rank"].to_pylist() == [1, 2, 3, 4] * 50
    scores, ids = open_index(StoreView.open(store.root)).search(vectors, 4)
    assert hits["id"].to_pylist() == ids.ravel().tolist()
    np.testing.assert_allclose(hits["score"].to_numpy(), scores.ravel(), atol=1e-6)
    assert hits["key"].to_pylist() == [f"{i // 200}/{i % 200}.jpg" for i in ids.ravel()]


def test_many_hits_of_many_queries_are_searched_in_pieces_with_the_same_answers(store, queries, tmp_path, monkeypatch):
    _, path = queries
    search_all(store, path, tmp_path / "whole.parquet")
    monkeypatch.setattr("query.batch.MOST_HITS", 12)
    asked, search = [], IndexSearcher.search

    def counted(self, found, k, *options):
        asked.append(len(found))
        return search(self, found, k, *options)

    monkeypatch.setattr(IndexSearcher, "search", counted)
    search_all(store, path, tmp_path / "pieces.parquet")
    assert set(asked) == {3, 2}
    pieces, whole = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("pieces", "whole"))
    exact = ["query", "rank", "id", "key"]
    assert pieces.select(exact).equals(whole.select(exact))
    for name in ("score", "relevance"):  # products of matrices round differently in pieces
        np.testing.assert_allclose(pieces[name].to_numpy(), whole[name].to_numpy(), rtol=1e-5)


def test_a_bad_file_of_vectors_leaves_no_file_of_hits(store, tmp_path):
    vectors = unit_vectors(5, DIM)
    vectors[3] = np.nan
    path = write_vectors(tmp_path / "queries.parquet", vectors)
    with pytest.raises(InputError, match="row 4: its vector is not finite"):
        search_all(store, path, tmp_path / "hits.parquet")
    wide = write_vectors(tmp_path / "wide.parquet", unit_vectors(5, 7))
    with pytest.raises(InputError, match="its vector has 7 numbers, but those of the store have 16"):
        search_all(store, wide, tmp_path / "hits.parquet")
    assert not (tmp_path / "hits.parquet").exists()


def run(*arguments, **options):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, **options)


def test_the_command_line_searches_with_vectors(store, queries, tmp_path):
    _, path = queries
    command = ["-m", "query.cli", "search", store.root, "--vectors", path, "-k", 3, "--out", tmp_path / "hits.parquet"]
    done = run(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_hits"] == 150
    both = run(*command, "a text")
    assert both.returncode == 2
    assert "give what to look for (QUERY, --image, --like), or a file of it" in both.stderr
    assert "need --out, the file of hits" in run("-m", "query.cli", "search", store.root, "--vectors", path).stderr


WITHOUT = """
import sys
for name in ("torch", "open_clip", "ray", "torchvision"):
    sys.modules[name] = None
from indexer.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_index_is_built_and_proven_without_torch(store, queries):
    _, path = queries
    command = ["-c", WITHOUT, store.root, "--recipe", "IVF16,SQ8", "--min-recall", "0.8"]
    done = run(*command, "--queries", path)
    assert done.returncode == 0, done.stderr
    assert "proven: recall@10" in done.stdout
    assert "queries: proven with 25 vectors of queries.parquet, tuned with 25 others" in done.stdout
    short = run(*command, "--rebuild")
    assert short.returncode == 4
    assert "is not proven: no --queries were given" in short.stderr


def test_the_command_line_shows_and_checks_an_index(store, queries):
    _, path = queries
    build = run(
        "-m", "query.cli", "index", store.root, "--recipe", "IVF16,SQ8", "--queries", path, "--min-recall", "0.8"
    )
    assert build.returncode == 0, build.stderr
    assert "the index was built" in build.stderr
    shown = run("-m", "query.cli", "index", store.root, "--show", "--json")
    results = json.loads(shown.stdout)
    assert results["proof"]["is_proven"] is True
    assert len(results["proof"]["text"]) >= 2
    checked = run("-m", "query.cli", "index", store.root, "--check")
    assert (checked.returncode, checked.stdout) == (0, "4 blocks and 300 rows checked: no damage\n")
    file = next(store.index_dir.glob("*.vectors"))
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    damaged = run("-m", "query.cli", "index", store.root, "--check")
    assert damaged.returncode == 4
    assert "block 0 is damaged" in damaged.stderr
