"""From a listing to what is planned: the first plan of a store, and what a grown or changed source adds to it.

Listing and plans are walked side by side in the order of keys, so that memory does not grow with them.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np

from pipeline.errors import InputError, StoreError
from pipeline.plan import Shard, cut_entries, cut_files
from pipeline.records import Plan, RunRecord, ShardStats
from pipeline.schema import read_part
from pipeline.source.entry import ImageEntry, SourceFile, SourceSpec
from pipeline.source.listing import Listing
from pipeline.source.reading import read_file, read_image
from pipeline.source.sorting import Sorted
from pipeline.store import Store
from pipeline.tombstones import REPLACED, add_tombstones, read_tombstones

OnChange = Literal["stop", "keep", "embed"]


@dataclass(frozen=True)
class Planned:
    """An image that a plan lists, or a file: where its rows are, and what was known of it."""

    key: str
    uri: str
    state: object
    location: str
    shard: Shard
    ids: tuple[int, ...] = ()


@dataclass
class Differences:
    """How a listing differs from the plans."""

    changed: list[Planned] = field(default_factory=list)
    gone: list[Planned] = field(default_factory=list)


def extend_plan(
    store: Store,
    record: RunRecord,
    committed: Mapping[int, ShardStats],
    listing: Listing,
    on_change: OnChange,
    check: "ContentCheck | None" = None,
) -> RunRecord:
    """Plan what of a listing no plan has yet.

    Args:
        store: The store.
        record: Its run, with the plans so far.
        committed: Its committed shards.
        listing: What the source holds now.
        on_change: For images that changed since they were planned: `stop` with an error, `keep` what there is, or
            `embed` them again and bury the old rows.
        check: Compares contents too, which sizes and times may not tell.

    Returns:
        The record, with a plan more if there is anything new.

    Raises:
        StoreError: If images changed, or are gone before they were embedded, and `on_change` is `stop`.
        InputError: If a key of the listing is in the store already, from elsewhere.
    """
    if not record.plans:
        return _add(store, record, listing, listing if listing.entries is not None else listing.files)
    differences = Differences()
    if listing.entries is not None:
        replaced = read_tombstones(store, REPLACED)
        planned = _planned_entries(store, record, replaced)
        new: Iterable = Sorted(_new_entries(listing, planned, differences, on_change, check), _key)
    else:
        new = _new_files(listing, record, differences, on_change, check)
    unfinished = [item for item in differences.gone if item.shard.ordinal not in committed]
    if on_change == "stop":
        _refuse(store, differences.changed, "changed since they were planned (size, time, caption, columns or content)")
        _refuse(store, unfinished, "are gone before they were embedded")
    if on_change == "embed" and differences.changed:
        record = _drop_unread(store, record, committed, differences.changed)
        add_tombstones(store, _old_ids(differences.changed, committed), REPLACED)
    return _add(store, record, listing, new)


class ContentCheck:
    """Compares the bytes of images with the hashes in their rows: reads all that is embedded."""

    def __init__(self, store: Store, committed: Mapping[int, ShardStats]) -> None:
        self._store = store
        self._committed = committed
        self._hashes = lru_cache(8)(self._hashes_of)  # walks of several plans alternate between a few shards

    def is_image_changed(self, planned: Planned, entry: ImageEntry) -> bool:
        """Whether the image is another than the one embedded, or one that could not be read then."""
        if planned.shard.ordinal not in self._committed:
            return False
        found = self._hashes(planned.shard.ordinal).get(planned.ids[0])
        try:
            return found != hashlib.sha256(read_image(entry.uri)).hexdigest()
        except OSError:  # nothing better could be embedded
            return False

    def is_file_changed(self, planned: Planned, spec: SourceSpec) -> bool:
        """The same for a shard that is a file, or rows of one."""
        shard = planned.shard
        if shard.ordinal not in self._committed:
            return False
        hashes = self._hashes(shard.ordinal)
        entries = read_file(shard.file, spec, shard.start, shard.start + shard.room)
        for number, entry in enumerate(entries, shard.first_id):
            # rows without bytes of their own point elsewhere
            if number in hashes and entry.data and hashes[number] != hashlib.sha256(entry.data).hexdigest():
                return True
        return False

    def _hashes_of(self, ordinal: int) -> dict[int, str | None]:
        table = read_part(self._store.part_of(self._committed[ordinal]), ["id", "sha256"])
        return dict(zip(table["id"].to_pylist(), table["sha256"].to_pylist(), strict=True))


def _add(store: Store, record: RunRecord, listing: Listing, new: Iterable) -> RunRecord:
    ordinal, first_id = record.next_numbers
    if listing.entries is not None:
        shards: Iterator = cut_entries(new, record.shard_capacity, ordinal, first_id)
    else:
        shards = ((shard, None) for shard in cut_files(new, listing.spec, record.shard_capacity, ordinal, first_id))
    first = next(shards, None)
    if first is None:
        return record

    def rest() -> Iterator:
        yield first
        yield from shards

    return store.add_plan(record, listing.spec, rest())


def _planned_entries(store: Store, record: RunRecord, replaced: np.ndarray) -> Iterator[Planned]:
    streams = [_entries_of(store, plan, replaced) for plan in record.plans if plan.has_entries]
    return heapq.merge(*streams, key=_key)


def _entries_of(store: Store, plan: Plan, replaced: np.ndarray) -> Iterator[Planned]:
    for shard in plan.shards:
        for row, entry in enumerate(store.entries_of(plan, shard)):
            number = shard.first_id + row
            place = np.searchsorted(replaced, number)
            if place == len(replaced) or replaced[place] != number:
                yield Planned(entry.key, entry.uri, entry.state, plan.source.location, shard, (number,))


def _new_entries(
    listing: Listing,
    planned: Iterator[Planned],
    differences: Differences,
    on_change: OnChange,
    check: ContentCheck | None,
) -> Iterator[ImageEntry]:
    old = next(planned, None)
    for entry in listing:
        while old and old.key < entry.key:
            _note_gone(old, listing, differences)
            old = next(planned, None)
        if old is None or old.key != entry.key:
            yield entry
            continue
        _refuse_stranger(entry, old)
        if old.state != entry.state or (check and check.is_image_changed(old, entry)):
            differences.changed.append(old)
            if on_change == "embed":
                yield entry
        old = next(planned, None)
    while old:
        _note_gone(old, listing, differences)
        old = next(planned, None)


def _new_files(
    listing: Listing, record: RunRecord, differences: Differences, on_change: OnChange, check: ContentCheck | None
) -> list[SourceFile]:
    planned: dict[str, list[Planned]] = {}
    for plan in record.plans:
        latest: dict[str, list[Planned]] = {}
        for shard in plan.shards:
            if shard.file and not shard.is_dropped:
                item = Planned(shard.file.key, shard.file.uri, shard.file, plan.source.location, shard)
                latest.setdefault(shard.file.key, []).append(item)
        planned |= latest  # of a file that changed, the newest plan speaks
    new = []
    for file in listing.files:
        old = planned.pop(file.key, None)
        if old is None:
            new.append(file)
            continue
        _refuse_stranger(file, old[0])
        if old[0].state != file or (check and any(check.is_file_changed(item, listing.spec) for item in old)):
            differences.changed += old
            if on_change == "embed":
                new.append(file)
    for old in planned.values():
        _note_gone(old[0], listing, differences)
    return new


def _refuse_stranger(found: ImageEntry | SourceFile, old: Planned) -> None:
    if found.uri != old.uri:
        raise InputError(
            f"the key {found.key!r} is in the store already, of {old.uri}; here it is of {found.uri}: give this source "
            "a --key-prefix, or put the collection back where it was"
        )


def _note_gone(old: Planned, listing: Listing, differences: Differences) -> None:
    if old.location == listing.spec.location:
        differences.gone.append(old)


def _refuse(store: Store, items: list[Planned], what: str) -> None:
    if items:
        raise StoreError(
            f"{len(items)} images or files of the store {store.root} {what}, first {items[0].key!r}; put them back, or "
            "give --on-change embed to embed what changed again, or --on-change keep to go on as planned"
        )


def _old_ids(items: list[Planned], committed: Mapping[int, ShardStats]) -> Iterator[int]:
    for item in items:
        stats = committed.get(item.shard.ordinal)
        if item.shard.file is None:
            yield from item.ids
        elif stats:
            yield from range(item.shard.first_id, item.shard.first_id + stats.num_images + stats.num_removed)


def _drop_unread(
    store: Store, record: RunRecord, committed: Mapping[int, ShardStats], changed: list[Planned]
) -> RunRecord:
    """Take shards out of the plans whose file changed before they were embedded."""
    dropped = {item.shard.ordinal for item in changed if item.shard.file and item.shard.ordinal not in committed}
    plans = []
    for plan in record.plans:
        if any(shard.ordinal in dropped for shard in plan.shards):
            shards = tuple(
                shard.model_copy(update={"is_dropped": True}) if shard.ordinal in dropped else shard
                for shard in plan.shards
            )
            plan = plan.model_copy(update={"shards": shards})
            store.write_plan(plan)
        plans.append(plan)
    return record.model_copy(update={"plans": tuple(plans)})


def _key(item: ImageEntry | Planned) -> str:
    return item.key
