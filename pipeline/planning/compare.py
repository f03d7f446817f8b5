"""Compare a listing with the plans of a store: what is new, what changed, what is gone."""

import heapq
from collections.abc import Iterator

import numpy as np

from pipeline.errors import InputError
from pipeline.planning.changes import Differences, Planned, key_of
from pipeline.planning.content import ContentCheck
from pipeline.settings.embed import OnChange
from pipeline.source.access.credentials import bare_entry
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.listing import Listing
from pipeline.source.sorting import Sorted
from pipeline.store.records import Plan
from pipeline.store.tombstones import REPLACED, read_tombstones, tombstones_between
from pipeline.store.view import StoreView


class Comparison:
    """Walks a listing and the plans in parallel."""

    def __init__(self, view: StoreView, listing: Listing, on_change: OnChange, checks_content: bool) -> None:
        self.differences = Differences()
        self._view, self._listing = view, listing
        self._embeds_changed = on_change == "embed"
        self._check = ContentCheck(view) if checks_content else None

    def new_entries(self) -> Iterator[ImageEntry]:
        """Yield entries that no plan has, and changed ones if they must be embedded again."""
        planned = self._planned_entries()
        old = next(planned, None)
        for entry in self._listing:
            while old and old.key < entry.key:
                self._note_missing(old)
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
            self._note_missing(old)
            old = next(planned, None)

    def new_files(self) -> list[SourceFile]:
        """The files that no plan has, and changed ones if they must be embedded again."""
        planned: dict[str, list[Planned]] = {}
        for plan in self._view.record.plans:
            planned |= _files_of(plan)  # the newest plan of a file wins
        replaced = read_tombstones(self._view.store, REPLACED)
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
            is_of_this_source = shards[0].location == self._listing.source.location
            if is_of_this_source and self._listing.is_gone(key, shards[0].uri) and self._note_unread(shards):
                self.differences.add_lost(key)
        return new

    def _planned_entries(self) -> Iterator[Planned]:
        replaced = read_tombstones(self._view.store, REPLACED)
        streams = [
            _sorted(self._entries_of(plan, replaced), plan) for plan in self._view.record.plans if plan.has_entries
        ]
        return heapq.merge(*streams, key=key_of)

    def _entries_of(self, plan: Plan, replaced: np.ndarray) -> Iterator[Planned]:
        location = plan.source.location
        for shard in plan.shards:
            passed_over = set(tombstones_between(replaced, shard.ids).tolist())
            deleted = set(tombstones_between(self._view.deleted, shard.ids).tolist())
            for number, entry in enumerate(self._view.store.entries_of(plan, shard), shard.first_id):
                bare = bare_entry(entry)
                if number not in passed_over:
                    yield Planned(
                        key=bare.key,
                        uri=bare.uri,
                        state=bare.state,
                        location=location,
                        shard=shard,
                        number=number,
                        is_deleted=number in deleted,
                    )

    def _is_image_changed(self, old: Planned, entry: ImageEntry) -> bool:
        return old.state != entry.state or bool(self._check and self._check.is_image_changed(old, entry))

    def _is_file_changed(self, shards: list[Planned], file: SourceFile) -> bool:
        source = self._listing.source
        if any(item.state != (file, _columns(source)) for item in shards):
            return True
        return bool(self._check and any(self._check.is_file_changed(shard, source) for shard in shards))

    def _note_missing(self, old: Planned) -> None:
        is_unread = old.shard.ordinal not in self._view.committed
        is_of_this_source = old.location == self._listing.source.location
        if is_unread and is_of_this_source and self._listing.is_gone(old.key, old.uri):
            self.differences.add_lost(old.key)

    def _note_unread(self, shards: list[Planned]) -> set[int]:
        unread = {item.shard.ordinal for item in shards if item.state} - self._view.committed.keys()
        self.differences.unread |= unread
        return unread

    def _ids_of(self, shards: list[Planned]) -> Iterator[int]:
        for item in shards:
            marker = self._view.committed.get(item.shard.ordinal)
            if marker:
                yield from range(item.number, item.number + marker.num_images + marker.num_removed)


def _sorted(planned: Iterator[Planned], plan: Plan) -> Iterator[Planned]:
    """The images of a plan, sorted by key. Without credentials, keys of an earlier plan can be in another order."""
    is_earlier = plan.source.format == "list" and "is_signed" not in plan.source.model_fields_set
    return iter(Sorted(planned, key_of)) if is_earlier else planned


def _files_of(plan: Plan) -> dict[str, list[Planned]]:
    """The shards of each file of a plan, by key. The state of dropped shards is None, which equals no file."""
    found: dict[str, list[Planned]] = {}
    for shard in plan.shards:
        file = shard.file
        if file:
            state = None if shard.is_dropped else (file, _columns(plan.source))
            item = Planned(
                key=file.key,
                uri=file.uri,
                state=state,
                location=plan.source.location,
                shard=shard,
                number=shard.first_id,
            )
            found.setdefault(file.key, []).append(item)
    return found


def _is_given_up(shards: list[Planned], replaced: np.ndarray) -> bool:
    """Whether a file has no live rows and no newer plan: it changed or disappeared, and was given up."""
    if all(item.state is None for item in shards):
        return True
    return any(len(tombstones_between(replaced, item.shard.ids)) for item in shards)


def _columns(source: Source) -> tuple[str | None, ...]:
    return source.image_column, source.key_column, source.caption_column


def _refuse_stranger(found: ImageEntry | SourceFile, old: Planned) -> None:
    if found.uri != old.uri:
        raise InputError(
            f"the key {found.key!r} is already in the store, for {old.uri}; in this source it is {found.uri}: pass "
            "--key-prefix for this source, or move the collection back to its original location"
        )


def _refuse_second_key(file: SourceFile, key: str | None) -> None:
    if key is not None:
        raise InputError(
            f"{file.uri} is already in the store as {key!r}; as {file.key!r}, its images would be there twice: name "
            "the source as before, or name only the new files"
        )
