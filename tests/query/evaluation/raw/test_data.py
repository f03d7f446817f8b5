"""What is kept of a data set."""

import dataclasses

import numpy as np
import pytest

from pipeline.errors import StoreError
from pipeline.source.entry import ImageEntry
from query.evaluation.data.data_set import DataSet
from query.evaluation.raw.data import IMAGES, PAIRS, read_data, write_data


@pytest.fixture
def data():
    """Three images of its own and a distractor; one query has two right images, one has none."""
    return DataSet(
        name="four",
        kind="captions",
        location="nowhere",
        entries=[ImageEntry(f"{n}.jpg", f"file:///{n}.jpg", 0, 0) for n in range(4)],
        num_own=3,
        titles=["a dog", "ein Hündchen", "nothing"],
        prompts=[["a dog"], ["ein Hündchen", "ein Hund"], ["nothing"]],
        pairs_P2=np.array([[0, 1], [1, 0], [1, 2]]),
        grades_P=np.array([1, 1, 0.5], np.float32),
        counts={},
    )


def test_what_is_written_is_read(tmp_path, data):
    write_data(tmp_path / "data" / "four", data)
    found = read_data(tmp_path / "data" / "four", data.sha256)
    assert (found.name, found.sha256, found.kind, found.num_own) == ("four", data.sha256, "captions", 3)
    assert found.titles == data.titles
    assert found.keys == [entry.key for entry in data.entries]
    assert found.uris == [entry.uri for entry in data.entries]
    for name in ("pairs_P2", "grades_P", "clusters_Q"):
        value, expected = getattr(found, name), getattr(data, name)
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)


def test_a_data_set_without_pairs_is_read(tmp_path, data):
    bare = dataclasses.replace(data, pairs_P2=np.empty((0, 2), np.int64), grades_P=np.empty(0, np.float32))
    write_data(tmp_path, bare)
    assert read_data(tmp_path).pairs_P2.shape == (0, 2)


def test_another_split_is_refused(tmp_path, data):
    write_data(tmp_path, data)
    with pytest.raises(StoreError, match=r"queries.parquet is of another split of four"):
        read_data(tmp_path, "0" * 64)


def test_tables_of_two_splits_are_refused(tmp_path, data):
    write_data(tmp_path, data)
    kept = (tmp_path / IMAGES).read_bytes()
    write_data(tmp_path, dataclasses.replace(data, titles=["x"] * 3, prompts=[["x"]] * 3))
    (tmp_path / IMAGES).write_bytes(kept)
    with pytest.raises(StoreError, match=r"images.parquet was measured with another split"):
        read_data(tmp_path)


def test_a_missing_table_is_named(tmp_path, data):
    write_data(tmp_path, data)
    (tmp_path / PAIRS).unlink()
    with pytest.raises(StoreError, match=r"pairs.parquet is missing"):
        read_data(tmp_path)
