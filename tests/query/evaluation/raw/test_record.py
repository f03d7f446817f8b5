"""`sweep.json`."""

import json

import pytest

from pipeline.errors import StoreError, on_one_line
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.record import read_record, write_record
from query.evaluation.record import ConditionRecord, SweepRecord

RECORD = SweepRecord(
    clipsieve_version="0",
    grid={"rounds": 7},
    grid_sha256="a" * 64,
    commands=["clipsieve sweep grid.yaml --out ö"],
    environment={"torch": "2"},
    environment_key="e",
    data=[],
    conditions=[
        ConditionRecord(
            key="none-1",
            name="none",
            series="baseline",
            role="baseline",
            model="scenes",
            image_size=64,
            precision="fp32",
            fingerprint="f",
            gmacs=1.0,
            tokens_kept=16,
        )
    ],
)


@pytest.fixture
def folder(tmp_path):
    """A folder with a record."""
    write_record(SweepFolder(tmp_path), RECORD)
    return SweepFolder(tmp_path)


def test_what_is_written_is_read(folder):
    assert read_record(folder) == RECORD


def refusal(folder):
    with pytest.raises(StoreError) as caught:
        read_record(folder)
    assert on_one_line(caught.value) == str(caught.value)
    assert str(folder.record) in str(caught.value)
    return str(caught.value)


def test_a_folder_without_a_record_is_refused(tmp_path):
    assert "holds no sweep" in refusal(SweepFolder(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 1}', '{"schema_'])
def test_a_damaged_record_is_refused(folder, text):
    folder.record.write_text(text)
    assert "is damaged; run `clipsieve sweep`" in refusal(folder)


def test_another_schema_version_is_refused(folder):
    later = json.loads(folder.record.read_text()) | {"schema_version": 2, "new": 1}
    folder.record.write_text(json.dumps(later))
    assert "schema version 2, this version of clipsieve reads 1" in refusal(folder)
