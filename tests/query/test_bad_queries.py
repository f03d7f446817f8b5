"""Queries that cannot be answered, files of them, and stores that cannot be searched: one clear line each."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer import build_index
from pipeline.errors import ClipsieveError, ConfigError, InputError, StoreError, UnfinishedStore
from pipeline.store.tombstones import DELETED, add_tombstones
from query import Searcher
from query.batch import search_file
from query.queries.options import Options
from tests.kit.vector_store import add_vectors, unit_vectors, vector_store

DIM = 16


@pytest.fixture
def made(tmp_path):
    store = vector_store(tmp_path / "store", unit_vectors(300, DIM), 100)
    build_index(store.root)
    return store


def refused(error, call, text):
    with pytest.raises(error, match=text) as found:
        call()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("arguments", "error", "fault"),
    [
        ({"query": ""}, InputError, "the query is empty"),
        ({"query": " \n\t "}, InputError, "the query is empty"),
        ({}, InputError, "nothing is asked; give a text, an image"),
        ({"query": '"a" + ""'}, InputError, "the text at character 8 is empty"),
        ({"query": '"a" + b'}, InputError, "expected \\+ or - and a text .* at character 5"),
        ({"query": '"a cat" - "a cat"'}, InputError, "the weighted sum is zero: its terms cancel out"),
        ({"query": '0*"a cat"'}, InputError, "the weighted sum is zero"),
        ({"query": "a cat", "k": 0}, ConfigError, "k = 0: expected at least 1"),
        ({"query": "a cat", "min_relevance": float("nan")}, ConfigError, "min_relevance = nan: expected a finite"),
        ({"query": "a cat", "unique": 1.5}, ConfigError, "unique = 1.5: expected a cosine"),
        ({"query": "a cat", "templates": ["a photo"]}, ConfigError, "template 'a photo' has no {}"),
        ({"query": "a cat", "where": "hight > 3"}, ConfigError, "hight"),
        ({"like": "nowhere.jpg"}, InputError, "no image with the key 'nowhere.jpg'"),
        ({"like": 10**18}, InputError, "no image with the id 1000000000000000000"),
        ({"like": -1}, InputError, "no image with the id -1"),
        ({"vector": np.ones(3)}, InputError, r"the vector has the shape \(3,\), the embeddings of the store have"),
        ({"vector": np.full(32, np.nan)}, InputError, "shape|the vector is zero or not finite"),
    ],
)
def test_queries_that_cannot_be_answered(searcher, arguments, error, fault):
    refused(error, lambda: searcher.search(**arguments), fault)


def test_vectors_without_a_direction(made):
    with Searcher.open(made.root, device="cpu") as searcher:
        for value in (np.nan, np.inf, 0):
            vector = np.full(DIM, value, np.float32)
            refused(InputError, lambda vector=vector: searcher.search(vector=vector), "zero or not finite")


def test_an_image_that_cannot_be_decoded(searcher, tmp_path):
    (tmp_path / "broken.jpg").write_text("no image")
    refused(InputError, lambda: searcher.search(image=tmp_path / "broken.jpg"), "broken.jpg is ")
    refused(InputError, lambda: searcher.search(image=tmp_path / "missing.jpg"), "missing.jpg is ")
    refused(InputError, lambda: searcher.search(image=b"no image"), "the image of the query is ")


def test_long_and_strange_texts_are_answered(searcher):
    long = searcher.search("dog " * 10_000, k=3)
    assert len(long) == 3
    assert "the query is longer than the" in long.warnings[0]
    for text in ("\ud800 cat", "a\0cat", "\U0001f415 \U0001f468\u200d\U0001f469\u200d\U0001f467", "\u202e", "{}", "'"):
        hits = searcher.search(text, k=3, templates=["a photo of {}"])
        assert len(hits) == 3
        json.dumps(hits.to_dict()).encode()


def test_a_k_beyond_the_store_finds_all_of_it(searcher):
    assert len(searcher.search("a cat", k=10**9)) == len(searcher) == 12


def test_hits_of_another_store_and_of_a_deleted_image(made, tmp_path):
    other = vector_store(tmp_path / "other", unit_vectors(300, DIM, seed=5), 150)
    build_index(other.root)
    with Searcher.open(made.root) as ours, Searcher.open(other.root) as theirs:
        alien = theirs.search(vector=unit_vectors(1, DIM)[0], where="id = 120")[0]
        refused(InputError, lambda: ours.search(like=alien), "no image with the id 120")
        alien = theirs.search(vector=unit_vectors(1, DIM)[0], where="id = 400")[0]
        assert alien.key == "1/100.jpg"
        refused(
            InputError, lambda: ours.search(like=alien), "the hit has '1/100.jpg'; ask the store that the hit is of"
        )
        hit = ours.search(vector=unit_vectors(1, DIM)[0])[0]
        add_tombstones(made, [hit.id], DELETED, {hit.id: hit.key})
        ours.refresh()
        refused(InputError, lambda: ours.search(like=hit), f"the image with the id {hit.id} was deleted")


def test_a_searcher_that_is_closed(made):
    with Searcher.open(made.root) as searcher:
        hits = searcher.search(vector=np.ones(DIM))
    for call in (
        lambda: searcher.search("a cat"),
        lambda: hits.where("width > 3"),
        lambda: hits.like(0),
        searcher.refresh,
        lambda: len(searcher),
    ):
        refused(ConfigError, call, "is closed; open another one with Searcher.open")
    searcher.close()  # twice does no harm
    assert len(list(hits)) == 10


def test_a_store_that_is_being_written_or_has_grown(made):
    record = made.read_record()
    add_vectors(made, unit_vectors(100, DIM, seed=9), 100)
    refused(
        UnfinishedStore, lambda: Searcher.open(made.root), "it covers 3 shards and 300 images, the store has 4 shards"
    )
    with Searcher.open(made.root, partial=True) as searcher:
        assert len(searcher) == 300
    last = made.read_record().shards[-1]
    assert last not in record.shards
    next(path for path in made.embeddings_dir.iterdir() if f"{last.ordinal:05d}" in path.name).unlink()
    refused(UnfinishedStore, lambda: Searcher.open(made.root), "3 of 4 shards")
    with Searcher.open(made.root, partial=True) as searcher:
        assert len(searcher) == 300


def test_a_store_without_an_index(tmp_path):
    store = vector_store(tmp_path / "store", unit_vectors(20, DIM), 20)
    refused(StoreError, lambda: Searcher.open(store.root), "clipsieve index")
    refused(StoreError, lambda: Searcher.open(tmp_path / "nowhere"), "no store at")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("empty.txt", b"", "is empty; expected one text per line"),
        ("blank.txt", b"\n \n", "is empty; expected one text per line"),
        ("q.jsonl", b'{"query": "a"}\nnot json\n', "line 2 is not JSON"),
        ("q.jsonl", b'{"words": "a"}\n', "none of the columns query"),
        ("q.txt", b"a\n" * 6 + b'"a" + b\n', "text 7: query: expected . or - and a text"),
        ("q.docx", b"PK", "expected a name that ends in one of .txt"),
        ("q.parquet", b"PAR1 or not", "cannot read queries"),
        ("latin.txt", "caf\xe9".encode("latin-1"), "UTF-8"),
    ],
)
def test_files_of_queries_that_cannot_be_used(searcher, tmp_path, name, content, fault):
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "hits.parquet"
    refused(InputError, lambda: search_file(searcher, tmp_path / name, out, Options()), fault)
    assert list(tmp_path.glob("*hits*")) == []


def test_a_table_without_queries_and_a_file_that_is_not_there(searcher, tmp_path):
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "q.parquet")
    for name, fault in (("q.parquet", "none of the columns query.*only words"), ("none.txt", "none.txt")):
        call = lambda name=name: search_file(searcher, tmp_path / name, tmp_path / "hits.csv", Options())  # noqa: E731
        refused(ClipsieveError, call, fault)


def write_vectors(path, num_rows):
    pq.write_table(pa.table({"embedding": pa.array(list(unit_vectors(num_rows, DIM)))}), path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_hits_that_cannot_be_written(made, tmp_path, suffix):
    queries = write_vectors(tmp_path / "q.parquet", 10)
    with Searcher.open(made.root) as searcher:
        call = lambda: search_file(searcher, queries, tmp_path / "no" / f"hits{suffix}", Options())  # noqa: E731
        refused(StoreError, call, "cannot write .*No such file or directory")


FULL = """
import resource, signal, sys
from query.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_full_disk_leaves_no_file_of_hits(made, tmp_path, suffix):
    queries, out = write_vectors(tmp_path / "q.parquet", 5000), tmp_path / "out"
    out.mkdir()
    command = ["search", made.root, "--queries", queries, "--out", out / f"hits{suffix}"]
    run = subprocess.run([sys.executable, "-c", FULL, *map(str, command)], capture_output=True, text=True)
    assert run.returncode == 4, run.stderr
    [line] = run.stderr.strip().splitlines()
    assert line.startswith("error: cannot write")
    assert "File too large" in line
    assert list(out.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(made, tmp_path):
    queries, out = write_vectors(tmp_path / "q.parquet", 10), tmp_path / "out"
    out.mkdir(mode=0o500)
    with Searcher.open(made.root) as searcher:
        refused(StoreError, lambda: search_file(searcher, queries, out / "hits.csv", Options()), "Permission denied")
