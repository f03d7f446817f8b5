"""From a listing to what is planned: the first plan of a store, and what a grown or changed source adds to it.

Listing and plans are walked side by side in the order of keys, so that memory does not grow with them.
"""

import hashlib
import heapq
from array import array
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
from pipeline.tombstones import REPLACED, add_tombstones, create_tombstones, read_tombstones, tombstones_between

OnChange = Literal["stop", "keep", "embed"]


@dataclass(frozen=True, slots=True)
class Planned:
    """An image that a plan lists, or a shard of a file: where its rows are, and what was known of it."""

    key: str
    uri: str
    state: object
    location: str
    shard: Shard
    number: int
    """Id of its row, or of its first one."""
    is_deleted: bool = False
    """Asked to stay away, whatever its source has."""


@dataclass
class Differences:
    """How a listing differs from the plans: counts, the first keys, and what is to be done about it."""

    num_changed: int = 0
    first_changed: str = ""
    num_lost: int = 0
    """Gone before they were embedded."""
    first_lost: str = ""
    ids: array = field(default_factory=lambda: array("q"))
    """Rows of what changed."""
    unread: set[int] = field(default_factory=set)
    """Ordinals of shards whose file changed, or went, before it was embedded."""

    def add_changed(self, key: str, ids: Iterable[int]) -> None:
        """Count an image or file that changed."""
        self.first_changed = self.first_changed or key
        self.num_changed += 1
        self.ids.extend(ids)

    def add_lost(self, key: str) -> None:
        """Count an image or file that is gone."""
        self.first_lost = self.first_lost or key
        self.num_lost += 1


def extend_plan(
    store: Store,
    record: RunRecord,
    committed: Mapping[int, ShardStats],
    listing: Listing,
    on_change: OnChange,
    check: "ContentCheck | None" = None,
    capacity: int | None = None,
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
        capacity: Images per new shard; as the run began unless given.

    Returns:
        The record, with a plan more if there is anything new.

    Raises:
        StoreError: If images changed, or are gone before they were embedded, and `on_change` is `stop`.
        InputError: If a key of the listing is in the store already, from elsewhere.
    """
    capacity = capacity or record.shard_capacity
    if not record.plans:
        create_tombstones(store)
        return _add(store, record, listing, listing if listing.entries is not None else listing.files, capacity)
    _refuse_nested(record, listing.spec)
    growth = _Growth(store, record, committed, listing, on_change, check)
    # all of it, before anything is written
    new = growth.new_files() if listing.entries is None else Sorted(growth.new_entries(), _key)
    differences = growth.differences
    if on_change == "stop":
        _refuse(store, differences)
    if on_change == "embed":
        # in this order, so that a kill in between loses no image and shows none twice
        record = _drop(store, record, differences.unread)
        add_tombstones(store, differences.ids, REPLACED)
    return _add(store, record, listing, new, capacity)


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
        hashes = self._hashes(planned.shard.ordinal)
        try:
            return planned.number in hashes and hashes[planned.number] != _hash(read_image(entry.uri))
        except OSError:  # nothing better could be embedded
            return False

    def is_file_changed(self, planned: Planned, spec: SourceSpec) -> bool:
        """The same for a shard that is a file, or rows of one."""
        shard = planned.shard
        if shard.ordinal not in self._committed:
            return False
        hashes, stats = self._hashes(shard.ordinal), self._committed[shard.ordinal]
        entries = read_file(shard.file, spec, shard.start, shard.start + (shard.num_images or 0))
        count = 0
        for count, entry in enumerate(entries, start=1):
            number = shard.first_id + count - 1
            # rows without bytes of their own point elsewhere
            if number in hashes and entry.data and hashes[number] != _hash(entry.data):
                return True
        return count != stats.num_images + stats.num_removed

    def _hashes_of(self, ordinal: int) -> dict[int, str | None]:
        """Of each row that has one, or has none for its image could not be read; not of those that ended a decoder."""
        table = read_part(self._store.part_of(self._committed[ordinal]), ["id", "sha256", "status"])
        rows = zip(*(table[name].to_pylist() for name in ("id", "sha256", "status")), strict=True)
        return {number: digest for number, digest, status in rows if digest or status == "unreadable"}


def _add(store: Store, record: RunRecord, listing: Listing, new: Iterable, capacity: int) -> RunRecord:
    ordinal, first_id = record.next_numbers
    if listing.entries is not None:
        shards: Iterator = cut_entries(new, capacity, ordinal, first_id)
    else:
        shards = ((shard, None) for shard in cut_files(new, listing.spec, capacity, ordinal, first_id))
    first = next(shards, None)
    if first is None:
        return record

    def rest() -> Iterator:
        yield first
        yield from shards

    return store.add_plan(record, listing.spec, rest())


class _Growth:
    """Walks a listing beside the plans."""

    def __init__(
        self,
        store: Store,
        record: RunRecord,
        committed: Mapping[int, ShardStats],
        listing: Listing,
        on_change: OnChange,
        check: ContentCheck | None,
    ) -> None:
        self.differences = Differences()
        self._store, self._record, self._committed, self._listing = store, record, committed, listing
        self._embeds_changed = on_change == "embed"
        self._check = check

    def new_entries(self) -> Iterator[ImageEntry]:
        """Entries that no plan has, and those that changed where they are to be embedded again."""
        planned = self._planned_entries()
        old = next(planned, None)
        for entry in self._listing:
            while old and old.key < entry.key:
                self._miss(old)
                old = next(planned, None)
            if old is None or old.key != entry.key:
                yield entry
                continue
            _refuse_stranger(entry, old)
            if not old.is_deleted and self._is_image_changed(old, entry):
                self.differences.add_changed(entry.key, [old.number])
                if self._embeds_changed:
                    yield entry
            old = next(planned, None)
        while old:
            self._miss(old)
            old = next(planned, None)

    def new_files(self) -> list[SourceFile]:
        """The same of files."""
        planned: dict[str, list[Planned]] = {}
        for plan in self._record.plans:
            planned |= _files_of(plan)  # of a file that changed, the newest plan speaks
        replaced = read_tombstones(self._store, REPLACED)
        planned = {key: shards for key, shards in planned.items() if not _is_given_up(shards, replaced)}
        keys = {shards[0].uri: key for key, shards in planned.items()}
        new = []
        for file in self._listing.files:
            shards = planned.pop(file.key, None)
            if shards is None:
                _refuse_second_key(file, keys.get(file.uri))
                new.append(file)
                continue
            _refuse_stranger(file, shards[0])
            if self._is_file_changed(shards, file):
                self.differences.add_changed(file.key, self._ids_of(shards))
                self._note_unread(shards)
                if self._embeds_changed:
                    new.append(file)
        for key, shards in planned.items():
            if shards[0].location == self._listing.spec.location and self._note_unread(shards):
                self.differences.add_lost(key)
        return new

    def _planned_entries(self) -> Iterator[Planned]:
        replaced, gone = read_tombstones(self._store, REPLACED), read_tombstones(self._store)
        streams = [self._entries_of(plan, replaced, gone) for plan in self._record.plans if plan.has_entries]
        return heapq.merge(*streams, key=_key)

    def _entries_of(self, plan: Plan, replaced: np.ndarray, gone: np.ndarray) -> Iterator[Planned]:
        location = plan.source.location
        for shard in plan.shards:
            reach = shard.first_id, shard.first_id + shard.room
            passed_over = set(tombstones_between(replaced, *reach).tolist())
            deleted = set(tombstones_between(gone, *reach).tolist())
            for number, entry in enumerate(self._store.entries_of(plan, shard), shard.first_id):
                if number not in passed_over:
                    yield Planned(entry.key, entry.uri, entry.state, location, shard, number, number in deleted)

    def _is_image_changed(self, old: Planned, entry: ImageEntry) -> bool:
        return old.state != entry.state or bool(self._check and self._check.is_image_changed(old, entry))

    def _is_file_changed(self, shards: list[Planned], file: SourceFile) -> bool:
        spec = self._listing.spec
        if any(item.state != (file, _columns(spec)) for item in shards):
            return True
        return bool(self._check and any(self._check.is_file_changed(shard, spec) for shard in shards))

    def _miss(self, old: Planned) -> None:
        is_unread = old.shard.ordinal not in self._committed
        if is_unread and old.location == self._listing.spec.location:
            self.differences.add_lost(old.key)

    def _note_unread(self, shards: list[Planned]) -> set[int]:
        unread = {item.shard.ordinal for item in shards if item.state} - self._committed.keys()
        self.differences.unread |= unread
        return unread

    def _ids_of(self, shards: list[Planned]) -> Iterator[int]:
        for item in shards:
            stats = self._committed.get(item.shard.ordinal)
            if stats:
                yield from range(item.number, item.number + stats.num_images + stats.num_removed)


def _files_of(plan: Plan) -> dict[str, list[Planned]]:
    """The shards of each file of a plan; those that were dropped have no state, which no file is equal to."""
    found: dict[str, list[Planned]] = {}
    for shard in plan.shards:
        file = shard.file
        if file:
            state = None if shard.is_dropped else (file, _columns(plan.source))
            item = Planned(file.key, file.uri, state, plan.source.location, shard, shard.first_id)
            found.setdefault(file.key, []).append(item)
    return found


def _is_given_up(shards: list[Planned], replaced: np.ndarray) -> bool:
    """Whether nothing of a file is to be seen any more: it changed or went, and no newer plan stands for it."""
    if all(item.state is None for item in shards):
        return True
    return any(len(tombstones_between(replaced, item.number, item.number + item.shard.room)) for item in shards)


def _columns(spec: SourceSpec) -> tuple[str | None, ...]:
    return spec.image_column, spec.key_column, spec.caption_column


def _refuse_stranger(found: ImageEntry | SourceFile, old: Planned) -> None:
    if found.uri != old.uri:
        raise InputError(
            f"the key {found.key!r} is in the store already, of {old.uri}; here it is of {found.uri}: give this source "
            "a --key-prefix, or put the collection back where it was"
        )


def _refuse_second_key(file: SourceFile, key: str | None) -> None:
    if key is not None:
        raise InputError(
            f"{file.uri} is in the store already, as {key!r}; here it would be {file.key!r}, and its images there "
            "twice: name the source as before, or only what is new"
        )


def _refuse_nested(record: RunRecord, spec: SourceSpec) -> None:
    """Refuse a folder within a folder of the store, or around one, or the same one under another prefix."""
    for plan in record.plans:
        old = plan.source
        if spec.format != "folder" or old.format != "folder":
            continue
        inner, outer = sorted([f"{old.location.rstrip('/')}/", f"{spec.location.rstrip('/')}/"], key=len, reverse=True)
        if inner.startswith(outer) and (inner != outer or old.key_prefix != spec.key_prefix):
            raise InputError(
                f"the folder {spec.location} shares images with {old.location}, which is in the store under other "
                "keys; they would be there twice: name the source as before, or only what is new"
            )


def _refuse(store: Store, differences: Differences) -> None:
    if differences.num_changed:
        raise StoreError(
            f"{differences.num_changed} images or files of the store {store.root} changed since they were planned "
            f"(size, time, caption, columns or content), first {differences.first_changed!r}; put them back, or give "
            "--on-change embed to embed them again, or --on-change keep to go on as planned"
        )
    if differences.num_lost:
        raise StoreError(
            f"{differences.num_lost} images or files of the store {store.root} are gone before they were embedded, "
            f"first {differences.first_lost!r}; put them back, or give --on-change embed to go on without them"
        )


def _drop(store: Store, record: RunRecord, ordinals: set[int]) -> RunRecord:
    """Take shards out of the plans whose file changed, or went, before they were embedded."""
    plans = []
    for plan in record.plans:
        if any(shard.ordinal in ordinals for shard in plan.shards):
            shards = tuple(
                shard.model_copy(update={"is_dropped": True}) if shard.ordinal in ordinals else shard
                for shard in plan.shards
            )
            plan = plan.model_copy(update={"shards": shards})
            store.write_plan(plan)
        plans.append(plan)
    return record.model_copy(update={"plans": tuple(plans)})


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _key(item: ImageEntry | Planned) -> str:
    return item.key
