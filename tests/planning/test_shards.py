"""Cutting a listing into shards."""

from dataclasses import replace

import pytest

from pipeline.planning.shards import cut_entries, cut_files, shard_capacity
from pipeline.source.entry import ImageEntry, Source, SourceFile

ENTRIES = [ImageEntry(f"{number}.jpg", f"file:///{number}.jpg", 10, 20) for number in range(10)]


def cut(entries, capacity, ordinal=0, first_id=0):
    return list(cut_entries(entries, capacity, ordinal, first_id))


def ids_of(pieces):
    return [shard.shard_id for shard, _ in pieces]


@pytest.mark.parametrize(("capacity", "sizes"), [(1, [1] * 10), (4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (99, [10])])
def test_every_image_is_in_one_shard_in_order(capacity, sizes):
    pieces = cut(ENTRIES, capacity)
    assert [shard.num_images for shard, _ in pieces] == [shard.room for shard, _ in pieces] == sizes
    assert [shard.ordinal for shard, _ in pieces] == list(range(len(sizes)))
    assert [shard.first_id for shard, _ in pieces] == [shard.start for shard, _ in pieces]
    assert [entry for _, entries in pieces for entry in entries] == ENTRIES


def test_a_later_plan_continues_the_numbering():
    [(first, _), (second, _)] = cut(ENTRIES, 5, ordinal=7, first_id=100)
    assert (first.ordinal, first.first_id, first.start) == (7, 100, 0)
    assert (second.ordinal, second.first_id, second.start) == (8, 105, 5)


@pytest.mark.parametrize(
    "change",
    [{"key": "x.jpg"}, {"num_bytes": 11}, {"mtime_ns": 21}, {"caption": "a dog"}, {"extra": {"license": "by"}}],
    ids=["key", "size", "time", "caption", "column"],
)
def test_shard_id_changes_with_its_images(change):
    changed = [*ENTRIES[:5], replace(ENTRIES[5], **change), *ENTRIES[6:]]
    before, after = ids_of(cut(ENTRIES, 4)), ids_of(cut(changed, 4))
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


def test_shard_id_does_not_depend_on_where_the_folder_is():
    moved = [replace(entry, uri=f"file:///elsewhere/{entry.key}") for entry in ENTRIES]
    assert ids_of(cut(moved, 4)) == ids_of(cut(ENTRIES, 4))


def test_keys_that_look_like_hashed_text_do_not_collide():
    entries = [ImageEntry(key, "", 0, 0) for key in ("a", "b', 0, 0, None)('c")]
    joined = [ImageEntry("a', 0, 0, None)('b', 0, 0, None)('c", "", 0, 0)]
    assert ids_of(cut(entries, 2)) != ids_of(cut(joined, 2))


def test_a_tar_is_a_shard_with_room_for_every_possible_image():
    spec = Source(location="x", format="webdataset")
    tars = [SourceFile(key=f"{n}.tar", uri=f"file:///{n}.tar", num_bytes=10_240, mtime_ns=n) for n in range(3)]
    shards = list(cut_files(tars, spec, 4, 0, 0))
    assert [(shard.first_id, shard.room, shard.num_images) for shard in shards] == [
        (0, 20, None),
        (20, 20, None),
        (40, 20, None),
    ]
    assert len({shard.shard_id for shard in shards}) == 3


def test_parquet_files_are_cut_by_rows():
    spec = Source(location="x", format="parquet")
    files = [
        SourceFile(key=f"{n}", uri=f"file:///{n}", num_bytes=1, mtime_ns=1, num_rows=rows)
        for n, rows in enumerate((5, 0, 8))
    ]
    shards = list(cut_files(files, spec, 4, 3, 50))
    assert [(shard.ordinal, shard.file.key, shard.start, shard.num_images, shard.first_id) for shard in shards] == [
        (3, "0", 0, 4, 50),
        (4, "0", 4, 1, 54),
        (5, "2", 0, 4, 55),
        (6, "2", 4, 4, 59),
    ]


@pytest.mark.parametrize(
    ("num_images", "num_workers", "capacity"),
    [(1_000_000, 2, 10_000), (80_000, 2, 10_000), (79_999, 2, 9_999), (1000, 2, 125), (3, 2, 1), (0, 1, 1)],
)
def test_capacity_keeps_every_worker_busy(num_images, num_workers, capacity):
    assert shard_capacity(num_images, num_workers) == capacity


@pytest.mark.parametrize("num_images", [8, 9, 15, 100, 1007, 12_345])
def test_at_least_four_shards_per_worker(num_images):
    capacity = shard_capacity(num_images, 2)
    assert -(-num_images // capacity) >= 8
