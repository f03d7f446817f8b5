"""Queries that are vectors in a Parquet file: what is read, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.proof import query_file
from indexer.proof.query_file import has_vectors, iterate_query_vectors, read_query_vectors, text_queries_of
from pipeline.errors import InputError
from pipeline.model.spec import spec_metadata

DIM = 4
SPACE = "a" * 64


@pytest.fixture
def vectors():
    found = np.random.default_rng(0).standard_normal((30, DIM))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def write(tmp_path):
    """Writes a column of vectors, and metadata as our own files have it."""

    def write(column, metadata=None, name="q.parquet"):
        table = pa.table({"embedding": column, "id": range(len(column))})
        table = table.replace_schema_metadata({"clipsieve": json.dumps(metadata)} if metadata else None)
        pq.write_table(table, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("element", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("kind", ["list", "large list", "fixed"])
def test_every_type_of_vectors(write, vectors, kind, element):
    made = {"list": pa.list_(element), "large list": pa.large_list(element), "fixed": pa.list_(element, DIM)}[kind]
    values = vectors.astype(element.to_pandas_dtype())
    path = write(pa.array(list(values), pa.list_(element)).cast(made))
    assert has_vectors(path)
    found = np.concatenate(list(iterate_query_vectors(path, DIM)))
    assert found.dtype == np.float32
    assert np.allclose(found, vectors, atol=1e-3 if element == pa.float16() else 1e-6)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_the_order_of_the_file_is_kept_across_batches(write, vectors, monkeypatch):
    monkeypatch.setattr(query_file, "_BATCH_ROWS", 7)
    path = write(list(3 * vectors))
    batches = list(iterate_query_vectors(path, DIM, SPACE))
    assert [len(batch) for batch in batches] == [7, 7, 7, 7, 2]
    assert np.allclose(np.concatenate(batches), vectors, atol=1e-6)


def test_different_vectors_in_an_order_of_their_own(write, vectors):
    path = write([*vectors, *vectors[:10]])
    found = read_query_vectors(path, DIM)
    assert np.array_equal(found, read_query_vectors(path, DIM))
    assert np.allclose(sorted(found.tolist()), sorted(vectors.tolist()), atol=1e-6)
    assert not np.allclose(found, vectors, atol=1e-6)


def test_of_a_large_file_a_sample_is_used_and_all_is_checked(write, vectors, monkeypatch):
    monkeypatch.setattr(query_file, "MAX_QUERIES", 11)
    monkeypatch.setattr(query_file, "_BATCH_ROWS", 7)
    found = read_query_vectors(write(list(vectors)), DIM)
    assert len(found) == 11
    assert all(np.isclose(vectors, row, atol=1e-6).all(axis=1).any() for row in found)
    for row in (0, 29):
        bad = vectors.copy()
        bad[row] = np.nan
        with pytest.raises(InputError, match=f"row {row + 1}: "):
            read_query_vectors(write(list(bad)), DIM)


def test_halves_prove_and_tune(write, vectors):
    found = text_queries_of(write(list(vectors[:5])), DIM, SPACE)
    assert found.source == "proven with 3 vectors of q.parquet, tuned with 2 others"
    both = np.concatenate([found.proving_QE, found.tuning_QE])
    assert np.allclose(sorted(both.tolist()), sorted(vectors[:5].tolist()), atol=1e-6)
    assert len(found.sha256) == 64
    with pytest.raises(InputError, match="expected two different vectors or more"):
        text_queries_of(write([vectors[0], vectors[0]]), DIM, SPACE)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (None, r"row 9: it has no vector; leave the row out"),
        ([1.0, 0, 0], r"row 9: its vector has 3 numbers, but those of the store have 4; embed the texts with"),
        ([1.0, 0, np.nan, 0], r"row 9: its vector is not finite; leave the row out"),
        ([1.0, 0, np.inf, 0], r"row 9: its vector is not finite; leave the row out"),
        ([1.0, 0, None, 0], r"row 9: its vector is not finite; leave the row out"),
        ([0.0, 0, 0, 0], r"row 9: its vector is zero; leave the row out"),
    ],
)
def test_a_row_that_cannot_be_used(write, vectors, monkeypatch, row, message):
    monkeypatch.setattr(query_file, "_BATCH_ROWS", 4)
    path = write(pa.array([*vectors[:8].tolist(), row], pa.list_(pa.float32())))
    with pytest.raises(InputError, match=message) as caught:
        list(iterate_query_vectors(path, DIM))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([], pa.list_(pa.float32(), DIM)), "is empty; expected one vector per row"),
        (pa.array(["a", "b"]), "column 'embedding' is string, expected lists of 4 floats"),
        (pa.array([[1, 2, 3, 4]]), r"column 'embedding' is list<\w+: int64>, expected lists of 4 floats"),
        (pa.array([[1.0, 2, 3]], pa.list_(pa.float32(), 3)), "row 1: its vector has 3 numbers"),
    ],
)
def test_a_column_that_cannot_be_used(write, column, message):
    with pytest.raises(InputError, match=message):
        read_query_vectors(write(column), DIM)


def test_another_text_space(write, vectors):
    path = write(list(vectors), {"text_space": "b" * 64})
    for space in (None, "b" * 64):
        assert len(read_query_vectors(path, DIM, space)) == 30
    with pytest.raises(InputError, match=r"they are in text space b{16}, but the store is in a{16}; embed the texts"):
        read_query_vectors(path, DIM, SPACE)


def test_image_vectors_do_not_prove_text_queries(write, vectors, spec):
    path = write(list(vectors), spec_metadata(spec))
    with pytest.raises(InputError, match="it has image vectors, as a part of a store; pass vectors of texts"):
        read_query_vectors(path, DIM, spec.text_space)
    assert len(next(iterate_query_vectors(path, DIM, spec.text_space))) == 30  # a search can use them


@pytest.mark.parametrize("content", [None, "text", "cut", "no column", "suffix"])
def test_a_file_that_cannot_be_read(write, vectors, tmp_path, content):
    path, message = tmp_path / "q.parquet", "expected a Parquet file"
    if content == "text":
        path.write_text("text")
    elif content == "cut":
        write(list(vectors))
        path.write_bytes(path.read_bytes()[:-20])
    elif content == "no column":
        pq.write_table(pa.table({"vector": [[1.0]], "id": [1]}), path)
        message = "has no column 'embedding', only vector, id; rename the column of vectors"
    elif content == "suffix":
        path, message = tmp_path / "q.txt", "vectors are read from Parquet; expected a name that ends in .parquet"
    with pytest.raises(InputError, match=message) as caught:
        read_query_vectors(path, DIM)
    assert str(path) in str(caught.value)


def test_pages_that_cannot_be_read(write, vectors, monkeypatch):
    monkeypatch.setattr(query_file, "_BATCH_ROWS", 7)
    path = write(list(np.random.default_rng(0).standard_normal((5000, DIM))))
    raw = bytearray(path.read_bytes())
    raw[1000:3000] = bytes(2000)
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"queries .*q.parquet"):
        list(iterate_query_vectors(path, DIM))


def test_vectors_are_read_without_torch():
    program = "import sys; sys.modules['torch'] = None; import indexer.proof.query_file; print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"
