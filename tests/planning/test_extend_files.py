"""Plans for tars and Parquet files that are new, changed or gone."""

import io
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, StoreError
from pipeline.store.commit_markers import committed_markers
from pipeline.store.tombstones import DELETED, add_tombstones, read_tombstones
from tests.kit.jobs import KILLS, Job, Killed, hashed, kill_before_planning


@pytest.fixture
def job(tmp_path, spec):
    return Job(tmp_path / "store", spec)


def write_tar(path, numbers, word="image"):
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            data = f"{word} {number}".encode()
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_parquet(path, numbers, word="image"):
    columns = {"image": [f"{word} {number}".encode() for number in numbers], "alt": [str(number) for number in numbers]}
    pq.write_table(pa.table(columns), path, row_group_size=2, compression="none", use_dictionary=False)


WRITERS = {".tar": write_tar, ".parquet": write_parquet}


class Source:
    """A folder of files of one kind, and the images it should hold."""

    def __init__(self, folder, suffix):
        self.folder, self.suffix = folder, suffix
        self.pattern = folder / f"*{suffix}"
        self.images = {}
        folder.mkdir()

    def write(self, stem, numbers, word="image"):
        path = self.folder / f"{stem}{self.suffix}"
        self.remove(stem)
        WRITERS[self.suffix](path, numbers, word)
        for row, number in enumerate(numbers):
            name = f"{number}.jpg" if self.suffix == ".tar" else row
            self.images[f"{path.name}/{name}"] = hashed(f"{word} {number}".encode())
        return path

    def remove(self, stem):
        path = self.folder / f"{stem}{self.suffix}"
        path.unlink(missing_ok=True)
        self.images = {key: value for key, value in self.images.items() if not key.startswith(f"{path.name}/")}


@pytest.fixture(params=WRITERS)
def source(tmp_path, request):
    """Two files, with 5 and 2 images."""
    source = Source(tmp_path / "sets", request.param)
    source.write("a", range(5))
    source.write("c", range(2))
    return source


def test_the_first_plan_and_what_is_new(job, source):
    first = job.plan(source.pattern)
    job.commit()
    assert job.living == source.images
    assert job.plan(source.pattern) == first == job.plan(source.pattern, "embed", check=True)
    source.write("b", range(4))
    second = job.plan(source.pattern)
    assert second.plans[0] == first.plans[0]
    assert {shard.file.key for shard in second.plans[1].shards} == {f"b{source.suffix}"}
    ordinal, first_id = first.next_numbers
    assert (second.plans[1].shards[0].ordinal, second.plans[1].shards[0].first_id) == (ordinal, first_id)
    job.commit()
    assert job.living == source.images
    ids = list(job.ids())
    assert ids == sorted(ids)
    assert job.plan(f"{source.folder}/{{a,b,c}}{source.suffix}") == second  # the same files, named differently


def changed_count(source):
    return rf"1 images or files of the store .* changed .*, first 'a{source.suffix}'; .*--on-change embed"


@pytest.mark.parametrize("num_committed", [0, 1, 99])
def test_a_changed_file(job, source, num_committed):
    first = job.plan(source.pattern)
    job.commit(num_committed)
    old_ids = {number for number, key in job.ids().items() if key.startswith(f"a{source.suffix}/")}
    source.write("a", range(6), "another")
    with pytest.raises(StoreError, match=changed_count(source)):
        job.plan(source.pattern)
    assert job.plan(source.pattern, "keep") == first == job.record
    second = job.plan(source.pattern, "embed")
    assert {shard.file.key for shard in second.plans[1].shards} == {f"a{source.suffix}"}
    dropped = {shard.ordinal for shard in second.plans[0].shards if shard.is_dropped}
    of_a = {shard.ordinal for shard in first.shards if shard.file.key.startswith("a")}
    assert dropped == of_a - set(range(num_committed))
    assert dropped.isdisjoint(shard.ordinal for shard in second.shards)
    assert set(read_tombstones(job.store).tolist()) == old_ids
    assert job.plan(source.pattern, "embed") == second == job.plan(source.pattern)
    job.commit()
    assert job.living == source.images
    assert job.plan(source.pattern) == second
    source.write("a", range(3), "third")
    job.run(source.pattern, "embed")
    assert job.living == source.images


def test_a_file_that_grew_is_embedded_again(job, source):
    job.run(source.pattern)
    source.write("a", range(9))
    with pytest.raises(StoreError, match=changed_count(source)):
        job.plan(source.pattern)
    job.run(source.pattern, "embed")
    assert job.living == source.images


@pytest.mark.parametrize("num_committed", [0, 1, 99])
def test_a_file_that_disappeared(job, source, num_committed):
    first = job.plan(source.pattern)
    job.commit(num_committed)
    has_all_of_a = all(shard.ordinal < num_committed for shard in first.shards if shard.file.key.startswith("a"))
    images = dict(source.images)
    source.remove("a")
    if has_all_of_a:
        assert job.plan(source.pattern) == first
        job.commit()
        assert job.living == images  # rows of a missing file stay
        return
    with pytest.raises(
        StoreError, match=rf"1 images or files .* disappeared before they were embedded, first 'a{source.suffix}'"
    ):
        job.plan(source.pattern)
    assert job.plan(source.pattern, "keep") == first
    with pytest.raises(InputError, match=r"cannot read .*/a\."):
        job.commit()
    last = job.plan(source.pattern, "embed")
    job.commit()  # continues without it
    assert job.living.items() >= source.images.items()
    assert job.plan(source.pattern) == last
    assert len(last.shards) == len(committed_markers(job.store, last))
    source.write("a", range(5))  # it is back
    job.run(source.pattern, "embed")
    assert job.living == images


def test_a_change_that_keeps_size_and_time(job, source):
    path = source.write("a", range(5))
    first = job.run(source.pattern)
    last = job.record
    found = path.stat()
    path.write_bytes(path.read_bytes().replace(b"image 3", b"hmage 3"))  # in the data and in the page statistics
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert job.plan(source.pattern) == last
    with pytest.raises(StoreError, match=changed_count(source)):
        job.plan(source.pattern, check=True)
    job.run(source.pattern, "embed", check=True)
    third = list(source.images)[-2]
    assert job.living == first | {third: hashed(b"hmage 3")}
    last = job.record
    assert job.plan(source.pattern, check=True) == last


@pytest.mark.parametrize("is_committed", [True, False])
@pytest.mark.parametrize("kill", KILLS)
def test_a_kill_while_a_changed_file_is_planned(job, source, kill, is_committed, monkeypatch):
    job.plan(source.pattern)
    job.commit(None if is_committed else 1)
    source.write("a", range(6), "another")
    source.write("d", range(2))
    with monkeypatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            job.plan(source.pattern, "embed")
    job.run(source.pattern, "embed")
    assert job.living == source.images
    last = job.record
    assert job.plan(source.pattern) == last


def test_a_file_from_another_location_needs_a_prefix(job, source, tmp_path):
    job.plan(source.pattern)  # but not committed
    other = Source(tmp_path / "other", source.suffix)
    other.write("a", range(3), "other")
    with pytest.raises(InputError, match=rf"the key 'a{source.suffix}' is already in the store"):
        job.plan(other.pattern)
    job.run(other.pattern, key_prefix="other/")
    assert job.living == source.images | {f"other/{key}": digest for key, digest in other.images.items()}
    last = job.record
    assert len(last.shards) == len(committed_markers(job.store, last))
    assert job.plan(source.pattern) == last == job.plan(other.pattern, key_prefix="other/")


def test_deleted_rows_stay_away_when_contents_are_checked(job, source):
    job.run(source.pattern)
    add_tombstones(job.store, [1], DELETED)
    last = job.record
    assert job.plan(source.pattern, check=True) == last
    assert len(job.living) == len(source.images) - 1


def test_other_columns_are_a_change(job, tmp_path):
    source = Source(tmp_path / "sets", ".parquet")
    source.write("a", range(4))
    job.run(source.pattern)
    with pytest.raises(StoreError, match=changed_count(source)):
        job.plan(source.pattern, caption_column="alt")
    job.run(source.pattern, "embed", caption_column="alt")
    assert len(job.plan(source.pattern, caption_column="alt").plans) == 2
    assert job.living == source.images


def test_a_parquet_file_beside_a_folder_and_a_list(job, tmp_path):
    source = Source(tmp_path / "sets", ".parquet")
    source.write("a", range(4))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/x.jpg").write_text("x")
    job.run(source.pattern)
    job.run(tmp_path / "photos")
    assert job.living == source.images | {"x.jpg": hashed(b"x")}
    last = job.record
    assert job.plan(source.pattern, check=True) == last == job.plan(tmp_path / "photos", check=True)
    os.utime(source.folder / "a.parquet", ns=(1, 1))
    job.run(source.pattern, "embed")
    assert job.living == source.images | {"x.jpg": hashed(b"x")}


@pytest.mark.parametrize("num_committed", [1, 99])
@pytest.mark.parametrize("check", [False, True])
def test_a_file_that_disappeared_and_came_back_unchanged(job, source, tmp_path, num_committed, check):
    job.plan(source.pattern)
    job.commit(num_committed)
    (source.folder / f"a{source.suffix}").rename(tmp_path / "away")
    job.plan(source.pattern, "embed")
    job.commit()
    (tmp_path / "away").rename(source.folder / f"a{source.suffix}")
    if source.suffix == ".parquet" and num_committed == 1:  # some of its rows are committed, the others were dropped
        with pytest.raises(StoreError, match=changed_count(source)):
            job.plan(source.pattern, check=check)
    for on_change in ("embed", "stop", "keep"):
        job.plan(source.pattern, on_change, check=check)
    job.commit()
    assert job.living == source.images


def test_a_file_that_changed_disappeared_and_came_back_unchanged(job, source, tmp_path):
    job.run(source.pattern)
    old, images = tmp_path / "old", dict(source.images)
    (source.folder / f"a{source.suffix}").rename(old)
    source.write("a", range(6), "another")
    job.plan(source.pattern, "embed")  # but not committed
    source.remove("a")
    job.plan(source.pattern, "embed")
    old.rename(source.folder / f"a{source.suffix}")
    assert job.run(source.pattern) == images


@pytest.mark.parametrize("then", ["stop", "keep", "embed"])
def test_a_file_restored_after_a_kill(job, source, tmp_path, monkeypatch, then):
    job.run(source.pattern)
    old, images = tmp_path / "old", dict(source.images)
    (source.folder / f"a{source.suffix}").rename(old)
    source.write("a", range(6), "another")
    with monkeypatch.context() as patch:
        kill_before_planning(patch)
        with pytest.raises(Killed):
            job.plan(source.pattern, "embed")
    old.rename(source.folder / f"a{source.suffix}")
    assert job.run(source.pattern, then) == images


def test_a_parquet_file_that_lost_all_its_rows(job, tmp_path):
    for name in "ab":
        write_parquet(tmp_path / f"{name}.parquet", range(3))
    job.run(tmp_path / "*.parquet")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "b.parquet")
    assert set(job.run(tmp_path / "*.parquet", "embed")) == {f"a.parquet/{row}" for row in range(3)}
    job.plan(tmp_path / "*.parquet")  # no longer a change


def test_the_same_file_under_another_key_is_refused(job, source):
    before = job.plan(source.pattern)
    key = f"{source.folder.name}/a{source.suffix}"
    with pytest.raises(InputError, match=rf"already in the store as 'a{source.suffix}'; as '{key}'"):
        job.plan(source.folder.parent / f"s?ts/*{source.suffix}")
    with pytest.raises(InputError, match=r"; as 'p/a"):
        job.plan(source.pattern, key_prefix="p/")
    assert job.record == before


def test_captions_that_only_later_files_have_are_refused(job, tmp_path):
    pq.write_table(pa.table({"image": [b"0"]}), tmp_path / "a.parquet")
    job.run(tmp_path / "*.parquet")
    pq.write_table(pa.table({"image": [b"1"], "caption": ["one"]}), tmp_path / "b.parquet")
    for on_change in ("stop", "embed"):
        with pytest.raises(InputError, match=r"b.parquet has captions in column 'caption', which earlier files do not"):
            job.plan(tmp_path / "*.parquet", on_change)
    assert len(job.living) == 1
