"""Cutting a listing into shards."""

from dataclasses import replace

import pytest

from pipeline.plan import plan_shards, shard_capacity
from pipeline.source import ImageEntry

ENTRIES = [ImageEntry(f"{number}.jpg", f"file:///{number}.jpg", 10, 20) for number in range(10)]


@pytest.mark.parametrize(("capacity", "sizes"), [(1, [1] * 10), (4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (99, [10])])
def test_every_image_once_and_in_order(capacity, sizes):
    shards = plan_shards(ENTRIES, capacity)
    assert [len(shard.entries) for shard in shards] == sizes
    assert [shard.ordinal for shard in shards] == list(range(len(sizes)))
    assert [entry for shard in shards for entry in shard.entries] == ENTRIES


def test_plan_is_deterministic():
    assert plan_shards(ENTRIES, 4) == plan_shards(list(ENTRIES), 4)


@pytest.mark.parametrize(
    "change",
    [{"key": "x.jpg"}, {"num_bytes": 11}, {"mtime_ns": 21}, {"caption": "a dog"}],
    ids=["key", "size", "time", "caption"],
)
def test_shard_id_tells_that_an_image_changed(change):
    changed = [*ENTRIES[:5], replace(ENTRIES[5], **change), *ENTRIES[6:]]
    before, after = ([shard.shard_id for shard in plan_shards(entries, 4)] for entries in (ENTRIES, changed))
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


def test_shard_id_does_not_depend_on_where_the_folder_is():
    moved = [replace(entry, uri=f"file:///elsewhere/{entry.key}") for entry in ENTRIES]
    assert plan_shards(moved, 4)[0].shard_id == plan_shards(ENTRIES, 4)[0].shard_id


def test_shard_ids_of_other_cuts_differ():
    entries = [ImageEntry(key, "", 0, 0) for key in ("a", "b', 0, 0, None)('c")]
    joined = [ImageEntry("a', 0, 0, None)('b', 0, 0, None)('c", "", 0, 0)]
    assert plan_shards(entries, 2)[0].shard_id != plan_shards(joined, 2)[0].shard_id


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
