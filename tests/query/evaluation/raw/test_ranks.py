"""The raw answers: what is written is read, and what is not what was asked for is refused by name."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.errors import StoreError, on_one_line
from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.head import METADATA_KEY, RawHead, holds
from query.evaluation.raw.images import read_cosines, write_cosines
from query.evaluation.raw.ranks import read_ranks, write_ranks


@pytest.fixture
def path(tmp_path, by_task, head):
    """Answers in a folder that did not exist."""
    path = tmp_path / "raw" / "flickr8k" / "l2-12345678.ranks.parquet"
    write_ranks(path, by_task, head)
    return path


def refusal(path, head):
    with pytest.raises(StoreError) as caught:
        read_ranks(path, head)
    message = str(caught.value)
    assert on_one_line(message) == message
    assert str(path) in message
    assert "run the command" in message
    return message


def test_what_is_written_is_read(path, by_task, head):
    found = read_ranks(path, head)
    assert list(found) == list(by_task)
    for task, answers in by_task.items():
        for name in Answers.__slots__:
            value, expected = getattr(found[task], name), getattr(answers, name)
            assert value.dtype == expected.dtype
            assert value.shape == expected.shape
            np.testing.assert_array_equal(value, expected)


def test_nothing_else_is_left_in_the_folder(path):
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_other_tools_can_read_the_rows(path, by_task):
    table = pq.read_table(path).to_pylist()
    assert [row["query"] for row in table if row["task"] == "text_retrieval"] == list(range(10))
    assert table[1]["ids"] == by_task["image_retrieval"].ids_QK[1].tolist()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("kind", "images", "another kind"),
        ("condition", "grid-00000000", "another condition"),
        ("data", "coco", "another data set"),
        ("data_sha256", "0" * 64, "another split"),
        ("fingerprint", "0" * 64, "another encoder"),
        ("environment_key", "0" * 16, "another environment"),
        ("settings", {"k": 3, "epsilon": 0.01}, "another set of settings"),
    ],
)
def test_a_file_of_something_else_is_refused(path, head, field, value, words):
    other = head.model_copy(update={field: value})
    assert holds(path, head)
    assert not holds(path, other)
    assert words in refusal(path, other)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_file_that_was_cut_is_refused(path, head, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert not holds(path, head)
    assert "damaged" in refusal(path, head)


def test_a_file_with_changed_bytes_is_refused(path, head):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in refusal(path, head)


def test_a_missing_file_is_named(path, head):
    path.unlink()
    assert not holds(path, head)
    assert "is missing" in refusal(path, head)


def test_another_schema_version_is_refused(path, head):
    table = pq.read_table(path)
    later = json.dumps({**head.model_dump(), "schema_version": 99, "new": 1}).encode()
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: later}), path)
    assert not holds(path, head)
    assert "schema version 99, this version of clipsieve reads 1" in refusal(path, head)


@pytest.mark.parametrize("metadata", [None, {METADATA_KEY: b"{"}, {METADATA_KEY: b"[1]"}, {METADATA_KEY: b"{}"}])
def test_a_file_without_a_head_is_refused(path, head, metadata):
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    assert not holds(path, head)
    refusal(path, head)


def test_cosines_are_read_as_written(tmp_path):
    head = RawHead(kind="images", condition="l2-12345678")
    cosines = np.array([1.0, 0.25, np.nan], np.float32)
    write_cosines(tmp_path / "a.parquet", cosines, head)
    np.testing.assert_array_equal(read_cosines(tmp_path / "a.parquet", head), cosines)
