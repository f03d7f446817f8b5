"""Failed images that are tried again: one by one, whatever kind of source they are in."""

import datetime
import io
import os
import tarfile
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.compact import compact
from pipeline.delete import delete
from pipeline.errors import InputError, StoreError
from pipeline.planning import extend
from pipeline.planning.batches import batches_of
from pipeline.planning.planned import PlannedFile
from pipeline.settings.store import CompactSettings, DeleteSettings, VerifySettings
from pipeline.source.entry import ImageEntry, Source, Status
from pipeline.source.formats import parquet, webdataset
from pipeline.source.listing import list_source
from pipeline.source.reading import read_listed
from pipeline.store.layout import Store
from pipeline.store.records import Shard
from pipeline.store.tombstones import DELETED, REPLACED, add_tombstones, read_tombstones
from pipeline.store.view import StoreView
from pipeline.verify import verify
from tests.kit.jobs import Job, Killed, die, hashed, kill_before_planning, kill_before_the_plan_counts

NUM_IMAGES = 7
FAILED = {2: "timeout", 3: "undecodable", 5: "timeout"}  # in shards 0, 1 and 1, where there are shards of 3
COLUMNS = {
    "text": ["a", None, "ä"],
    "blob": [b"\xff\x00", None, b""],
    "day": [datetime.date(2020, 5, 1), None, datetime.date(1600, 1, 1)],
    "when": pa.array([10**18 + 1, None, -1], pa.timestamp("ns")),
    "number": [1.5, None, float("inf")],
}


def data_of(number):
    return f"image {number}".encode()


def make_folder(place):
    (place / "photos").mkdir()
    for number in range(NUM_IMAGES):
        (place / f"photos/{number}.jpg").write_bytes(data_of(number))
    return place / "photos", {}, {number: f"{number}.jpg" for number in range(NUM_IMAGES)}


def make_list(place):
    make_folder(place)
    lines = [f"photos/{number}.jpg\tno. {number}\tby {number}" for number in range(NUM_IMAGES)]
    (place / "list.tsv").write_text("\n".join(["path\tcaption\tauthor", *lines, ""]))
    keys = {number: f"photos/{number}.jpg" for number in range(NUM_IMAGES)}
    return place / "list.tsv", {"columns": {"author": ""}}, keys


def make_tar(place):
    with tarfile.open(place / "a.tar", "w") as archive:
        for number in range(NUM_IMAGES):
            for suffix, data in (("jpg", data_of(number)), ("txt", f"no. {number}".encode())):
                info = tarfile.TarInfo(f"{number}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return place / "a.tar", {}, {number: f"a.tar/{number}.jpg" for number in range(NUM_IMAGES)}


def make_parquet(place):
    columns = {name: pa.array(list(values) * 3)[:NUM_IMAGES] for name, values in COLUMNS.items() if name != "when"}
    columns["when"] = pa.concat_arrays([COLUMNS["when"]] * 3)[:NUM_IMAGES]
    images = [data_of(number) for number in range(NUM_IMAGES)]
    ids = [f"id-{number}" for number in range(NUM_IMAGES)]
    table = pa.table({"image": images, "id": ids, "caption": [f"no. {n}" for n in range(NUM_IMAGES)], **columns})
    pq.write_table(table, place / "a.parquet")
    return place / "a.parquet", {"key_column": "id", "columns": dict.fromkeys(COLUMNS, "")}, dict(enumerate(ids))


MAKERS = {"folder": make_folder, "list": make_list, "tar": make_tar, "parquet": make_parquet}


class Case:
    """A source, and a store of it in which some images failed."""

    def __init__(self, place, spec, make):
        self.source, self.options, self.keys = make(place)
        self.job = Job(place / "store", spec)
        self.plan()
        self.job.commit(failing={self.keys[number]: status for number, status in FAILED.items()})
        self.contents = {self.keys[number]: hashed(data_of(number)) for number in self.keys}

    def plan(self, *retried, on_change="stop"):
        return self.job.plan(self.source, on_change, retried=retried, **self.options)

    def run(self, *retried, on_change="stop", failing=()):
        self.plan(*retried, on_change=on_change)
        self.job.commit(failing={self.keys[number]: status for number, status in dict(failing).items()})
        assert verify(VerifySettings(store=self.job.store.root)).findings == []
        return self.view.counts

    @property
    def view(self):
        return StoreView.now(self.job.store, self.job.record)

    def rows(self):
        """Every row that is not tombstoned, by number of the image."""
        numbers = {key: number for number, key in self.keys.items()}
        view, found = self.view, {}
        for _, table in view.parts():
            table = table.drop_columns("embedding")
            if "when" in table.column_names:  # nanoseconds do not fit Python's own type
                table = table.set_column(table.column_names.index("when"), "when", table["when"].cast(pa.int64()))
            for row in table.to_pylist():
                if row["id"] not in view.deleted:
                    assert row["key"] not in found, f"{row['key']} is there twice"
                    found[numbers[row["key"]]] = row
        return found


@pytest.fixture(params=MAKERS)
def case(tmp_path, spec, request):
    return Case(tmp_path, spec, MAKERS[request.param])


def test_only_rows_with_the_named_statuses_are_tried_again(case):
    before = case.rows()
    first = case.job.record
    assert case.view.counts.failed == {"timeout": 2, "undecodable": 1}
    record = case.plan("timeout")
    assert record.plans[:-1] == first.plans
    plan = record.plans[-1]
    assert (plan.retried, plan.has_entries, plan.source) == (("timeout",), True, first.plans[0].source)
    listed = list(case.job.store.entries_of(plan))
    assert [(entry.key, entry.uri, entry.replaces) for entry in listed] == [
        (before[number]["key"], before[number]["uri"], before[number]["id"]) for number in (2, 5)
    ]
    assert read_tombstones(case.job.store, REPLACED).tolist() == [before[number]["id"] for number in (2, 5)]
    counts = case.run()
    assert (counts.num_ok, counts.num_images, counts.failed) == (6, 7, {"undecodable": 1})
    after = case.rows()
    assert {number for number in after if after[number] != before[number]} == {2, 5}
    assert case.job.living == {**case.contents, case.keys[3]: None}


def test_captions_columns_and_keys_stay_and_ids_are_new(case):
    before = case.rows()
    counts = case.run(*set(FAILED.values()))
    assert (counts.num_ok, counts.num_images, counts.failed) == (NUM_IMAGES, NUM_IMAGES, {})
    after = case.rows()
    changed = {"id", "status", "error", "sha256", "tokens_kept"}
    for number in before:
        stays = before[number].keys() - (changed if number in FAILED else set())
        assert {name: after[number][name] for name in stays} == {name: before[number][name] for name in stays}
    assert min(after[number]["id"] for number in FAILED) > max(row["id"] for row in before.values())
    assert case.job.living == case.contents


def test_then_there_is_nothing_to_do(case):
    case.run("timeout", "undecodable")
    last = case.job.record
    for on_change in ("stop", "keep", "embed"):
        assert case.plan(on_change=on_change) == last
        assert case.plan("timeout", "crashed", on_change=on_change) == last
    case.job.plan(case.source, check=True, **case.options)
    assert case.job.record == last


def test_images_that_fail_again_can_be_tried_once_more(case):
    assert case.run("timeout", "undecodable", failing={2: "crashed", 5: "timeout"}).num_ok == 5
    assert case.run("undecodable").num_ok == 5  # none has that status any more
    assert case.run("timeout", "crashed", failing={5: "unreadable"}).failed == {"unreadable": 1}
    assert case.run("unreadable").failed == {}
    assert case.job.living == case.contents
    assert len(read_tombstones(case.job.store, REPLACED)) == len(FAILED) + 2 + 1
    last = case.job.record
    assert case.plan() == last == case.plan(on_change="embed")


def kill_before_tombstones(monkeypatch):
    real = extend.add_tombstones
    # the first call only finishes what an earlier job left
    monkeypatch.setattr(extend, "add_tombstones", lambda store, ids, *rest: die() if [*ids] else real(store, [], *rest))


@pytest.mark.parametrize("then", [(), ("timeout", "undecodable")])
@pytest.mark.parametrize("kill", [kill_before_tombstones, kill_before_planning, kill_before_the_plan_counts])
def test_a_kill_neither_loses_an_image_nor_shows_one_twice(case, kill, then, monkeypatch):
    with monkeypatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            case.plan("timeout", "undecodable")
    assert len(case.rows()) == NUM_IMAGES
    assert case.view.counts.num_images == NUM_IMAGES
    case.run(*then)
    case.run("timeout", "undecodable")
    assert case.job.living == case.contents
    assert [plan.retried for plan in case.job.record.plans] == [(), ("timeout", "undecodable")]
    assert case.view.counts.num_images == NUM_IMAGES


def test_a_delete_after_a_kill_first_finishes_the_plan(case, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_before_tombstones(patch)
        with pytest.raises(Killed):
            case.plan("timeout")
    assert case.view.num_planned == (None if case.source.suffix == ".tar" else NUM_IMAGES)
    (tmp_path / "keys").write_text(case.keys[2])
    with pytest.raises(InputError, match="match no embedded image"):  # its row is planned, not embedded
        delete(DeleteSettings(store=case.job.store.root, keys=tmp_path / "keys"))
    case.run("timeout")
    assert delete(DeleteSettings(store=case.job.store.root, keys=tmp_path / "keys")).num_rows == 1
    others = {key: case.contents[key] for number, key in case.keys.items() if number != 2}
    assert case.job.living == {**others, case.keys[3]: None}


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_job_that_is_resumed_and_compacted(case, is_compacted):
    case.plan("timeout", "undecodable")
    assert len(case.view.missing) == 1
    case.plan("timeout", "undecodable")  # what is planned already is not planned twice
    assert len(case.job.record.plans) == 2
    case.run()
    if is_compacted:
        assert compact(CompactSettings(store=case.job.store.root)).num_rows == len(FAILED)
    counts = case.run("timeout", "undecodable")
    assert (counts.num_ok, counts.num_images) == (NUM_IMAGES, NUM_IMAGES)
    assert case.job.living == case.contents
    last = case.job.record
    assert case.plan() == last == case.plan(on_change="embed")


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_source_that_changes_after_its_images_were_tried_again(case, is_finished):
    case.plan("timeout", "undecodable")
    if is_finished:
        case.job.commit()
    path = case.source if case.source.is_file() else case.source / "3.jpg"
    if case.source.name == "list.tsv":
        path = case.source.parent / "photos" / "3.jpg"
    os.utime(path, ns=(1, 1))
    with pytest.raises(StoreError, match="1 images or files"):
        case.plan()
    counts = case.run(on_change="embed")
    assert case.job.living == case.contents
    assert (counts.num_ok, counts.num_images) == (NUM_IMAGES, NUM_IMAGES)
    last = case.job.record
    assert case.plan() == last == case.plan(on_change="embed")


def test_deleted_images_are_not_tried_again(case):
    add_tombstones(case.job.store, [case.rows()[2]["id"]], DELETED)
    case.run("timeout")
    assert 2 not in case.rows()
    assert case.rows()[5]["status"] == Status.OK


def test_an_image_that_failed_and_changed_is_read_as_it_is_now(tmp_path, spec):
    case = Case(tmp_path, spec, make_folder)
    (case.source / "3.jpg").write_bytes(b"repaired")
    with pytest.raises(StoreError, match=r"1 images or files .* first '3.jpg'"):
        case.plan()
    case.run("undecodable")
    assert case.job.living["3.jpg"] == hashed(b"repaired")
    case.plan()


def test_images_of_another_source_are_not_tried_again(tmp_path, spec):
    case = Case(tmp_path, spec, make_folder)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/x.jpg").write_bytes(b"x")
    record = case.job.plan(tmp_path / "more", retried=["timeout"])
    assert [plan.retried for plan in record.plans] == [(), ()]


def test_new_images_come_in_a_plan_of_their_own(tmp_path, spec):
    case = Case(tmp_path, spec, make_folder)
    (case.source / "9.jpg").write_bytes(data_of(9))
    record = case.plan("timeout")
    assert [(plan.retried, len(plan.shards)) for plan in record.plans] == [((), 3), (("timeout",), 1), ((), 1)]
    case.job.commit()
    assert case.job.living == {**case.contents, "3.jpg": None, "9.jpg": hashed(data_of(9))}


def test_a_limit_on_pixels_goes_with_the_images_that_are_tried_again(tmp_path, spec):
    case = Case(tmp_path, spec, make_folder)
    store, record = case.job.store, case.job.record
    listing = list_source(Source(location=str(case.source), format="folder"))
    changes = extend.find_changes(case.view, listing, retried=["timeout"])
    extend.write_changes(case.view, listing, changes, max_pixels=5000)
    again = Store(store.root).read_record()
    assert again.max_pixels == record.max_pixels == 1000
    assert [again.max_pixels_of(shard) for shard in again.shards] == [1000, 1000, 1000, 5000]


@pytest.mark.parametrize("make", [make_tar, make_parquet])
def test_a_file_is_read_in_one_pass(tmp_path, spec, make):
    case = Case(tmp_path, spec, make)
    case.plan("timeout", "undecodable")
    [shard] = case.view.missing
    entries = [entry for batch in batches_of(shard, case.job.record, case.job.store) for entry in batch]
    assert [(entry.key, entry.data) for entry in entries] == [(case.keys[n], data_of(n)) for n in FAILED]
    case.source.write_bytes(case.source.read_bytes()[:700])  # damaged: each image gets its own reason
    left = [entry.data for batch in batches_of(shard, case.job.record, case.job.store) for entry in batch]
    assert left == [None] * len(FAILED)


@pytest.mark.parametrize("make", [make_tar, make_parquet])
def test_an_image_that_is_gone_or_out_of_order_costs_one_more_pass(tmp_path, make, monkeypatch):
    source, _, _ = make(tmp_path)
    name = {"tar": "#member={}.jpg", "parquet": "#column=image&row={}"}[source.suffix[1:]]
    order = [99, 0, 4, 2, 3, 5, 6]
    uris = [f"{source.as_uri()}{name.format(number)}" for number in order]
    reader, function = (webdataset, "read_tar") if make is make_tar else (parquet, "read_rows")
    real, passes = getattr(reader, function), []
    monkeypatch.setattr(reader, function, lambda *args: passes.append(args) or real(*args))
    spec = Source(location=str(source), format="webdataset" if make is make_tar else "parquet", image_column="image")
    found = list(read_listed([ImageEntry("", uri, 0, 0) for uri in uris], spec))
    assert [entry.uri for entry in found] == uris
    assert [entry.data for entry in found] == [None, data_of(0), data_of(4), None, *map(data_of, (3, 5, 6))]
    assert len(passes) == 3


def test_rows_of_a_file_are_found_among_many_tombstones():
    shards = [Shard(ordinal=n, shard_id="", first_id=4 * n, room=4, num_images=4) for n in range(2)]
    marker = SimpleNamespace(num_images=3, num_removed=1)
    deleted = np.array([0, 5, *range(100, 1_000_000)])
    view = SimpleNamespace(committed={0: marker, 1: marker}, deleted=deleted)
    file = PlannedFile([SimpleNamespace(shard=shard, number=shard.first_id) for shard in shards], {3: 99, 4: 100})
    tracemalloc.start()
    try:
        assert file.live_ids(view).tolist() == [1, 2, 3, 4, 6, 7, 99]
        assert tracemalloc.get_traced_memory()[1] < deleted.nbytes / 10  # each of many files is looked up so
    finally:
        tracemalloc.stop()


def test_columns_whose_types_arrow_cannot_filter(tmp_path, spec):
    blobs, texts = [b"a", None, b"c"], ["x", "y", None]
    columns = {"blob": pa.array(blobs, pa.binary_view()), "text": pa.array(texts, pa.string_view())}
    pq.write_table(pa.table({"image": [b"0", b"1", b"2"], **columns}), tmp_path / "a.parquet")
    named = {"columns": dict.fromkeys(columns, "")}
    job = Job(tmp_path / "store", spec)
    job.plan(tmp_path / "a.parquet", **named)
    job.commit(failing={"a.parquet/1": "timeout"})
    job.run(tmp_path / "a.parquet", retried=["timeout"], **named)
    assert compact(CompactSettings(store=job.store.root)).num_rows == 1
    assert verify(VerifySettings(store=job.store.root)).findings == []
    tables = [table for _, table in StoreView.open(job.store.root).parts(["blob", "text"])]
    assert {table.schema.field(name).type for table in tables for name in columns} == {
        pa.binary_view(), pa.string_view()
    }  # fmt: skip
    rows = [row for table in tables for row in table.to_pylist()]
    assert rows == [{"blob": blobs[n], "text": texts[n]} for n in (0, 2, 1)]
