"""Signed links that are read later: by another list, or again, when the credentials of the plan are forgotten."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.planning.batches import credentials_of
from pipeline.settings.store import VerifySettings
from pipeline.source.access import location
from pipeline.source.access.credentials import KEYRING
from pipeline.store.view import StoreView
from pipeline.verify import verify
from tests.kit.jobs import Job, hashed
from tests.kit.signed_links import Site, assert_nothing_secret_in, serving_signed, signed


@pytest.fixture
def site():
    """A server that no earlier test has called, and no credentials of earlier tests."""
    location._filesystem.cache_clear()
    KEYRING.clear()
    with serving_signed() as url:
        yield url
    location._filesystem.cache_clear()
    KEYRING.clear()


def write_list(path, links):
    path.write_text("\n".join(["url", *links, ""]))
    return path


def test_a_signed_list_does_not_stand_in_for_another_one(site, tmp_path, spec):
    targets = [f"/{number}.jpg" for number in range(4)]
    Site.files |= {target: b"x" for target in [*targets, "/other.jpg"]}
    job = Job(tmp_path / "store", spec)
    planned = job.plan(write_list(tmp_path / "list.csv", [signed(site, target) for target in targets]))
    write_list(tmp_path / "other.csv", [signed(site, "/other.jpg")])
    write_list(tmp_path / "half.csv", [signed(site, target, 2) for target in targets[:2]])
    for name, first in (("other", 0), ("half", 2)):
        KEYRING.clear()
        with pytest.raises(
            InputError, match=rf"{name}.csv does not name all of them, first \S+/{first}.jpg: first fin"
        ):
            job.plan(tmp_path / f"{name}.csv")
        assert job.record == planned
    KEYRING.clear()
    job.run(write_list(tmp_path / "fresh.csv", [signed(site, target, 2) for target in targets]))
    assert list(job.living) == [f"{site}{target}" for target in targets]
    assert all(job.living.values())


def test_a_list_can_hold_links_that_are_not_signed(site, tmp_path, spec):
    Site.files["/a.jpg"] = b"x"
    job = Job(tmp_path / "store", spec)
    for name in ("list.csv", "list.csv", "fresh.csv"):
        KEYRING.clear()
        job.plan(write_list(tmp_path / name, [f"{site}/public.jpg", signed(site, "/a.jpg"), "local.jpg"]))
    job.commit()
    assert job.living[f"{site}/a.jpg"] == hashed(b"x")


def test_links_inside_parquet_files_that_are_tried_again(site, tmp_path, spec):
    targets = [f"/{number}.jpg" for number in range(5)]
    Site.files |= {target: target.encode() for target in targets}
    pq.write_table(pa.table({"url": [signed(site, target) for target in targets]}), tmp_path / "0.parquet")
    keys = [f"0.parquet/{number}" for number in range(5)]
    job = Job(tmp_path / "store", spec)
    job.plan(tmp_path / "0.parquet")
    job.commit(failing=dict.fromkeys([keys[1], keys[2], keys[4]], "timeout"))
    job.plan(tmp_path / "0.parquet", retried=["timeout"])
    job.commit(failing={keys[2]: "timeout"})
    KEYRING.clear()
    job.plan(tmp_path / "0.parquet", retried=["timeout"])  # the row is in a plan of rows tried again
    record = job.record
    [shard] = StoreView.now(job.store, record).missing
    assert credentials_of(shard, record, job.store) == {}  # the worker finds them in the file
    job.commit()
    assert job.living == {key: hashed(target.encode()) for key, target in zip(keys, targets, strict=True)}
    assert verify(VerifySettings(store=job.store.root)).findings == []
    assert_nothing_secret_in(tmp_path / "store")


def test_a_parquet_file_with_links_that_is_signed_itself(site, tmp_path, spec):
    pq.write_table(pa.table({"url": [signed(site, "/0.jpg")]}), tmp_path / "0.parquet")
    Site.files |= {"/0.parquet": (tmp_path / "0.parquet").read_bytes(), "/0.jpg": b"x"}
    job = Job(tmp_path / "store", spec)
    job.plan(signed(site, "/0.parquet"))
    job.commit(failing={"0.parquet/0": "timeout"})
    KEYRING.clear()
    record = job.plan(signed(site, "/0.parquet", 2), retried=["timeout"])
    assert credentials_of(record.shards[-1], record, job.store) == {f"{site}/0.parquet": signed(site, "/0.parquet", 2)}
    job.plan(signed(site, "/0.parquet", 2))  # resumed
    job.commit()
    assert job.living == {"0.parquet/0": hashed(b"x")}
