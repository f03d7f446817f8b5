"""A store view: what is committed, missing and deleted, and rows by their ids."""

import pytest

from pipeline.errors import StoreError, UnfinishedStore
from pipeline.source.entry import ImageEntry, ImageResult, Source, Status
from pipeline.store.layout import Store
from pipeline.store.records import Shard
from pipeline.store.tombstones import DELETED, MISSING, REPLACED, add_tombstones, create_tombstones
from pipeline.store.view import Counts, StoreView
from tests.kit.fake_store import commit_fake, fake_record


@pytest.fixture
def store(tmp_path, spec):
    """Three planned shards of two images, with room for ten ids each; the first and the last are committed."""
    store = Store(tmp_path / "store")
    store.create_folders()
    create_tombstones(store)
    shards = [
        Shard(ordinal=n, shard_id=f"id-{n}", first_id=10 * n, room=10, num_images=2, start=2 * n) for n in range(3)
    ]
    entries = [ImageEntry("x", "file:///x", 0, 0)] * 2
    record = store.add_plan(
        store.begin(fake_record(spec)),
        Source(location="/photos", format="folder"),
        [(shard, entries) for shard in shards],
    )
    for shard in (shards[2], shards[0]):
        results = [
            ImageResult(key=f"{shard.ordinal}-{row}", uri="file:///x", caption=f"no. {row}", status=Status.OK)
            for row in range(2)
        ]
        commit_fake(store, record, shard, results)
    return store


def test_a_view_knows_what_is_committed_and_what_is_missing(store):
    view = StoreView.open(store.root, partial=True)
    assert set(view.committed) == {0, 2}
    assert [shard.ordinal for shard in view.missing] == [1]
    assert view.missing[0].ids == range(10, 20)
    assert view.deleted.tolist() == []


def test_an_unfinished_store_is_opened_only_on_request(store, tmp_path):
    with pytest.raises(UnfinishedStore, match=r"2 of 3 shards, 4 of 6 images; .*--partial"):
        StoreView.open(store.root, partial=False)
    with pytest.raises(UnfinishedStore, match=r"run the same embed command again to finish it$"):
        StoreView.open(store.root)  # for a verb that has no such flag
    with pytest.raises(StoreError, match="clipsieve embed"):
        StoreView.open(tmp_path / "nowhere", partial=True)


def test_parts_come_in_the_order_of_their_ids(store):
    parts = list(StoreView.open(store.root, partial=True).parts(["id", "key"]))
    assert [marker.ordinal for marker, _ in parts] == [0, 2]
    assert [table.to_pydict() for _, table in parts] == [
        {"id": [0, 1], "key": ["0-0", "0-1"]},
        {"id": [20, 21], "key": ["2-0", "2-1"]},
    ]


def test_rows_are_found_by_id_across_parts(store):
    view = StoreView.open(store.root, partial=True)
    assert view.rows([21, 0, 21], ["key", "caption"]) == {
        0: {"key": "0-0", "caption": "no. 0"},
        21: {"key": "2-1", "caption": "no. 1"},
    }
    assert view.rows([], ["key"]) == {}


def test_deleted_rows_are_read_once(store):
    view = StoreView.open(store.root, partial=True)
    add_tombstones(store, [1], DELETED)
    assert view.deleted.tolist() == [1]
    add_tombstones(store, [20], DELETED)
    assert view.deleted.tolist() == [1]  # as it was when it was first asked for
    assert StoreView.open(store.root, partial=True).deleted.tolist() == [1, 20]


def test_each_image_counts_once(store):
    view = StoreView.open(store.root, partial=True)
    assert (view.counts, view.num_planned) == (Counts(4, {}), 6)
    for number, reason in ((0, REPLACED), (21, MISSING), (1, DELETED)):
        add_tombstones(store, [number], reason)
    view = StoreView.open(store.root, partial=True)
    assert (view.counts, view.num_planned) == (Counts(2, {}), 4)  # a deleted row counts until it is compacted
    assert view.count(view.record.shards[:1]) == Counts(1, {})
