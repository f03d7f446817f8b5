"""Plans whose texts were read by earlier rules still resume: only sizes and times are compared with them."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.durable.seal import unsealed_json, write_sealed_json
from pipeline.errors import StoreError
from tests.kit.jobs import Job


@pytest.fixture
def job(tmp_path, spec):
    return Job(tmp_path / "store", spec)


@pytest.fixture
def write(tmp_path):
    """Writes a list of two images with their captions, and returns its path."""
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text(name)

    def write_list(*captions):
        rows = [{"path": f"{name}.jpg", "caption": text} for name, text in zip("ab", captions, strict=True)]
        (tmp_path / "list.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return tmp_path / "list.jsonl"

    return write_list


def make_earlier(job):
    """Rewrite the store's plans as code wrote them before there were rules of texts."""
    for path in job.store.plan_dir.glob("*.json"):
        plan = unsealed_json(path.read_bytes())
        assert plan.pop("text_rules") == 2
        write_sealed_json(path, plan)


def test_an_earlier_plan_ignores_how_its_texts_were_read(job, write, tmp_path):
    first = job.run(write("one", "two"))
    make_earlier(job)
    source = write("one, read better", None)
    for on_change in ("stop", "keep", "embed"):
        record = job.plan(source, on_change)
        assert len(record.plans) == 1
        assert job.run(source, on_change) == first
    os.utime(tmp_path / "b.jpg", ns=(1, 1))
    with pytest.raises(StoreError, match=r"1 images or files .* changed .*, first 'b.jpg'"):
        job.plan(source)
    # what is embedded again is compared in full from then on
    assert job.plan(source, "embed").plans[1].text_rules == 2
    job.commit()
    with pytest.raises(StoreError, match=r"changed .*, first 'b.jpg'"):
        job.plan(write("read once more", "another"))


def test_an_earlier_plan_is_finished_with_the_texts_it_lists(job, write):
    source = write(["first", "second"], "two")
    [plan] = job.plan(source).plans
    make_earlier(job)
    assert [entry.caption for entry in job.store.entries_of(plan)] == ["first", "two"]
    assert len(job.plan(write("['first', 'second']", "two")).plans) == 1
    job.commit()
    assert len(job.living) == 2


def test_todays_plans_are_compared_in_full(job, write):
    job.run(write("one", "two"))
    with pytest.raises(StoreError, match=r"changed .*, first 'a.jpg'"):
        job.plan(write("another", "two"))


def test_an_earlier_plan_of_files_compares_the_columns_of_images_and_keys(job, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"a"], "other": [b"b"], "text": ["one"], "title": ["two"]}), path)
    job.run(path)
    with pytest.raises(StoreError, match=r"first 'a.parquet'"):
        job.plan(path, caption_column="title")
    make_earlier(job)
    assert len(job.plan(path, caption_column="title").plans) == 1
    with pytest.raises(StoreError, match=r"first 'a.parquet'"):
        job.plan(path, image_column="other")
