"""Rows whose embedding is missing, zero or not finite get a reason; the others get length 1."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.imported.matrix import RawEmbeddings, unit_embeddings
from pipeline.store.faults import NORM_TOLERANCE, norms_of
from query.cli.main import main
from tests.kit.damage import check
from tests.kit.embeddings import NOWHERE, rows_of, run_import, unit_vectors, write_parquet

REASONS = {
    1: "the embedding has values that are not finite",
    2: "the embedding is zero",
    4: "there is no embedding",
    5: "the embedding is empty",
    6: "the embedding has values that are not finite",
}


@pytest.fixture
def damaged(tmp_path):
    """8 rows, of which 5 are bad and one has length 7."""
    rows = [row.tolist() for row in unit_vectors(8)]
    rows[1][2], rows[2], rows[4], rows[5], rows[6][7] = np.inf, [0.0] * 8, None, [], None
    rows[3] = (7 * unit_vectors(8)[3]).tolist()
    return write_parquet(tmp_path / "v.parquet", rows, key=[f"k{n}" for n in range(8)], n=list(range(8)))


def test_bad_rows_stay_rows_with_a_reason(tmp_path, damaged):
    report = run_import(damaged, tmp_path / "store", columns="n", shard_size=3)
    rows = rows_of(tmp_path / "store")
    assert (report.num_images, report.num_ok, report.failed) == (8, 3, {"bad_embedding": 5})
    assert report.num_normalised == 1
    assert {row["id"]: row["error"] for row in rows if row["status"] != "ok"} == REASONS
    assert {row["status"] for row in rows} == {"ok", "bad_embedding"}
    assert [row["n"] for row in rows] == list(range(8))
    assert all((row["embedding"] is None) == (row["id"] in REASONS) for row in rows)
    assert np.allclose(rows[3]["embedding"], unit_vectors(8)[3], atol=1e-7)
    verified = check(report.view.store)
    assert (verified.findings, verified.num_ok, verified.failed) == ([], 3, {"bad_embedding": 5})


def test_the_verb_counts_them(tmp_path, damaged, capsys):
    assert main(["import", str(damaged), "--out", str(tmp_path / "store"), "--model", NOWHERE]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[:2] == ["3 of 8 rows imported, 5 bad_embedding", "1 rows were normalised"]
    assert "claimed by an import and not verified, fp32" in captured.out
    assert "warning: the model cannot be loaded, so its dimension is not compared" in captured.err
    assert main(["import", str(damaged), "--out", str(tmp_path / "store"), "--model", NOWHERE]) == 0
    again = capsys.readouterr()
    assert again.out.splitlines()[:3] == [*captured.out.splitlines()[:2], "nothing new to import"]
    assert "warning" not in again.err  # the claim is already in the store


@pytest.mark.parametrize("is_half", [False, True])
def test_lengths_within_the_tolerance_of_verify_are_left_alone(is_half):
    dtype, tolerance = (np.float16, 2e-3) if is_half else (np.float32, 1e-5)
    assert NORM_TOLERANCE["fp16" if is_half else "fp32"] == tolerance
    vectors = unit_vectors(2000, np.float64, dim=64)
    factors = 1 + np.linspace(-3 * tolerance, 3 * tolerance, len(vectors))
    raw = (vectors * factors[:, None]).astype(dtype)
    found = unit_embeddings(RawEmbeddings(raw), is_half)
    is_kept = np.abs(norms_of(raw.astype(np.float32)) - 1) < tolerance
    assert 0 < found.num_normalised == (~is_kept).sum() < len(raw)
    assert np.array_equal(found.values_NE[is_kept], raw[is_kept].astype(np.float32))
    stored = found.values_NE.astype(dtype).astype(np.float32)
    assert (np.abs(norms_of(stored) - 1) < tolerance).all()


@pytest.mark.parametrize("size", [1e-300, 1e-30, 3.0, 1e30, 1e200])
def test_any_length_becomes_1(size):
    vectors = unit_vectors(3, np.float64)
    found = unit_embeddings(RawEmbeddings(vectors * size), False)
    assert found.num_normalised == 3
    assert np.allclose(found.values_NE, vectors, atol=1e-7)


def test_tiny_float16_values_are_not_zero():
    raw = np.full((1, 8), 6e-8, np.float16)  # the smallest there is
    found = unit_embeddings(RawEmbeddings(raw), True)
    assert found.faults == {}
    assert np.allclose(found.values_NE, 8**-0.5)


def test_shards_may_be_bad_as_a_whole(tmp_path):
    source = write_parquet(tmp_path / "v.parquet", [*unit_vectors(2), None, None], pa.list_(pa.float32()))
    report = run_import(source, tmp_path / "store", shard_size=2)
    assert (report.num_ok, report.failed) == (2, {"bad_embedding": 2})
    assert check(report.view.store).findings == []
