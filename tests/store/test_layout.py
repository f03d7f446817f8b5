"""The store on disk: what counts as committed, and what is refused."""

import json

import pytest

from pipeline.durable.seal import sha256_of
from pipeline.errors import ConfigError, FingerprintMismatch, StoreError, UnfinishedStore
from pipeline.model.pruning.policy import choose_policy
from pipeline.source.entry import ImageEntry, ImageResult, Source, Status
from pipeline.store.commit_markers import committed_markers
from pipeline.store.layout import Store
from pipeline.store.records import Shard
from pipeline.store.view import StoreView
from tests.kit.fake_store import commit_fake, fake_record

IMAGE = ImageResult(key="a.jpg", uri="file:///a.jpg", width=8, height=8, sha256="0" * 64, status=Status.OK)
FOLDER = Source(location="/photos", format="folder")


def pieces(shard_ids=("aa", "bb", "cc"), start=0):
    """Planned shards of two images each, with their images."""
    for n, text in enumerate(shard_ids):
        entries = [
            ImageEntry(f"{start + 2 * n + k}.jpg", "file:///x", 10, 20, caption="a dog", extra={"by": "me"})
            for k in (0, 1)
        ]
        first_id = start + 2 * n
        yield (
            Shard(ordinal=first_id // 2, shard_id=text, first_id=first_id, room=2, num_images=2, start=2 * n),
            entries,
        )


def commit(store, record, ordinal):
    return commit_fake(store, record, record.shards[ordinal], [IMAGE, IMAGE])


@pytest.fixture
def store(tmp_path, spec):
    store = Store(tmp_path / "store")
    store.create_folders()
    store.add_plan(store.begin(fake_record(spec)), FOLDER, pieces())
    return store


@pytest.fixture
def record(store):
    return store.read_record()


def test_run_record_reads_back(store, record):
    assert store.read_record() == record
    assert record.num_images == 6


def test_commit_is_a_part_and_then_its_marker(store, record):
    done = commit(store, record, 1)
    names = sorted(path.name for path in store.embeddings_dir.iterdir())
    assert names == ["part-00001.parquet", "part-00001.stats.json"]
    assert done.sha256 == sha256_of(store.part_path(1))
    assert done.num_bytes == store.part_path(1).stat().st_size
    assert store.marker_path(1).stat().st_mtime_ns >= store.part_path(1).stat().st_mtime_ns
    assert committed_markers(store, record) == {1: done}


def test_a_marker_is_never_written_before_its_part(store, record):
    store.part_path(0).mkdir()  # something that a part cannot replace
    with pytest.raises(StoreError, match=r"cannot write .*part-00000.parquet"):
        commit(store, record, 0)
    assert [path.name for path in store.embeddings_dir.iterdir()] == ["part-00000.parquet"]
    assert committed_markers(store, record) == {}


def test_the_old_marker_does_not_count_for_a_replaced_part(store, record, monkeypatch):
    commit(store, record, 0)
    with monkeypatch.context() as patch:
        patch.setattr(
            "pipeline.store.commit_markers.sha256_of", lambda path: 1 / 0
        )  # like a kill between part and marker
        with pytest.raises(ZeroDivisionError):
            commit(store, record, 0)
    assert committed_markers(store, record) == {}
    done = commit(store, record, 0)
    assert committed_markers(store, record) == {0: done}


def test_a_part_whose_marker_cannot_be_written_does_not_count(store, record):
    store.marker_path(0).mkdir()
    with pytest.raises(StoreError, match=r"part-00000.stats.json"):
        commit(store, record, 0)
    store.marker_path(0).rmdir()
    assert store.part_path(0).exists()
    assert committed_markers(store, record) == {}


def forget_marker(store):
    store.marker_path(0).unlink()


def forget_part(store):
    store.part_path(0).unlink()


def tear_marker(store):
    data = store.marker_path(0).read_bytes()
    store.marker_path(0).write_bytes(data[: len(data) // 2])


def empty_marker(store):
    store.marker_path(0).write_bytes(b"")


def spoil_marker(store):
    store.marker_path(0).write_bytes(b"\xff\xfe\x00")


def cut_part(store):
    store.part_path(0).write_bytes(store.part_path(0).read_bytes()[:-1])


def change_marker(**fields):
    def change(store):
        stats = json.loads(store.marker_path(0).read_text())
        store.marker_path(0).write_text(json.dumps(stats | fields))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        forget_marker,
        forget_part,
        tear_marker,
        empty_marker,
        spoil_marker,
        cut_part,
        change_marker(shard_id="zz"),
        change_marker(fingerprint="zz"),
        change_marker(of_a_later_version=1),
    ],
)
def test_what_does_not_count_as_committed(store, record, damage):
    for ordinal in (0, 1):
        commit(store, record, ordinal)
    assert set(committed_markers(store, record)) == {0, 1}
    damage(store)
    assert set(committed_markers(store, record)) == {1}
    commit(store, record, 0)  # committing it again repairs it
    assert set(committed_markers(store, record)) == {0, 1}


def test_unfinished_store_is_refused_with_the_counts(store, record):
    with pytest.raises(UnfinishedStore, match=r"0 of 3 shards, 0 of 6 images; run the same embed command again"):
        StoreView.open(store.root, partial=True)  # partial needs at least one shard
    commit(store, record, 0)
    commit(store, record, 2)
    with pytest.raises(UnfinishedStore, match=r"2 of 3 shards, 4 of 6 images; .*or pass --partial"):
        StoreView.open(store.root, partial=False)
    assert set(StoreView.open(store.root, partial=True).committed) == {0, 2}
    commit(store, record, 1)
    assert set(StoreView.open(store.root).committed) == {0, 1, 2}


def test_beginning_again_returns_the_first_record(store, record):
    later = record.model_copy(update={"clipsieve_version": "1"})
    assert store.begin(later) == record
    assert store.read_record() == record


def test_plans_are_read_back_with_their_images(store, record):
    record = store.add_plan(record, FOLDER, pieces(("dd",), start=6))
    assert store.read_record() == record
    assert [shard.shard_id for shard in record.shards] == ["aa", "bb", "cc", "dd"]
    assert record.next_numbers == (4, 8)
    assert [record.plan_of(shard).number for shard in record.shards] == [0, 0, 0, 1]
    for plan, start in zip(record.plans, (0, 6), strict=True):
        expected = [entries for _, entries in pieces([shard.shard_id for shard in plan.shards], start)]
        assert [list(store.entries_of(plan, shard)) for shard in plan.shards] == expected
        assert list(store.entries_of(plan)) == [entry for entries in expected for entry in entries]


def test_an_interrupted_plan_leaves_nothing(store, record):
    def breaking():
        yield from pieces(("dd",), start=6)
        raise StoreError("the source went away")

    with pytest.raises(StoreError, match="went away"):
        store.add_plan(record, FOLDER, breaking())
    assert store.read_record() == record
    assert sorted(path.name for path in store.plan_dir.iterdir()) == ["00000.json", "00000.parquet"]


def test_a_missing_plan_is_noticed(store, record):
    store.add_plan(record, FOLDER, pieces(("dd",), start=6))
    (store.plan_dir / "00000.json").unlink()
    with pytest.raises(StoreError, match=r"00001.json is damaged \(the plan before it, number 0, is missing"):
        store.read_record()


def test_a_missing_list_is_noticed(store, record):
    (store.plan_dir / "00000.parquet").unlink()
    with pytest.raises(StoreError, match=r"cannot read .*plan/00000.parquet"):
        list(store.entries_of(record.plans[0]))


def test_other_columns_are_refused(store, record):
    with pytest.raises(ConfigError, match=r"carries the columns \(none\), but this source has license \(string\)"):
        store.begin(record.model_copy(update={"columns": {"license": "string"}}))


@pytest.mark.parametrize(
    "change", [{"policy": None}, {"policy": choose_policy("reference", 0.5)}, {"precision": "bf16"}]
)
def test_another_encoder_is_refused_and_both_are_shown(store, record, spec, change):
    other = spec.model_copy(update=change)
    with pytest.raises(FingerprintMismatch) as caught:
        store.begin(fake_record(other))
    assert spec.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)
    assert spec.describe() in str(caught.value)
    assert other.describe() in str(caught.value)
    assert store.read_record() == record


def test_folders_can_be_created_with_their_parents_and_twice(tmp_path):
    store = Store(tmp_path / "a" / "b")
    store.create_folders()
    store.create_folders()
    assert store.embeddings_dir.is_dir()


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match=r"is not a store and not empty \(it contains 'thesis.tex'\)"):
        Store(tmp_path).create_folders()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_files_of_a_job_that_died_before_its_record_are_accepted(tmp_path):
    store = Store(tmp_path)
    store.create_folders()
    (tmp_path / "lock.json").write_text("{}")
    (tmp_path / ".run.json.0123.tmp").write_text("{")
    store.create_folders()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match=r"cannot write the store .*; choose another --out"):
            Store(root).create_folders()


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match=r"no store at .*: run.json is missing; create one with `clipsieve embed`"):
        Store(tmp_path).read_record()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema_version": 2}'])
def test_damaged_run_record(store, data):
    store.record_path.write_bytes(data)
    with pytest.raises(StoreError, match=r"run.json is damaged \(.*\); .*embed again"):
        store.read_record()


def test_run_record_of_another_version(store):
    fields = json.loads(store.record_path.read_text()) | {"schema_version": 1}
    store.record_path.write_text(json.dumps(fields))
    with pytest.raises(StoreError, match="has schema version 1, but this version of clipsieve reads 2"):
        store.read_record()
