"""Compare a listing with the plans of a store: what is new, what changed, what is gone, what is tried again."""

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np

from pipeline.errors import InputError
from pipeline.planning.changes import Differences, Planned, file_state, image_state
from pipeline.planning.content import ContentCheck
from pipeline.planning.planned import PlannedFile, is_among, planned_entries, planned_files
from pipeline.planning.retry import failed_rows, images_of
from pipeline.settings.embed import OnChange
from pipeline.source.entry import ImageEntry, SourceFile
from pipeline.source.listing import Listing
from pipeline.source.sorting import Sorted
from pipeline.store.view import StoreView


class Comparison:
    """Walks a listing and the plans in parallel."""

    def __init__(
        self, view: StoreView, listing: Listing, on_change: OnChange, checks_content: bool, retried: Collection[str]
    ) -> None:
        self.differences = Differences()
        self._view, self._listing = view, listing
        self._embeds_changed = on_change == "embed"
        self._check = ContentCheck(view) if checks_content else None
        self._retried = failed_rows(view, retried) if retried else np.empty(0, np.int64)

    def entries(self) -> Iterator[ImageEntry]:
        """Yield entries that no plan has, changed ones if they must be embedded again, and those to try again."""
        planned = planned_entries(self._view, self._retried)
        old = next(planned, None)
        for entry in self._listing:
            while old and old.key < entry.key:
                self._note_missing(old)
                old = next(planned, None)
            if old is None or old.key != entry.key:
                yield entry
                continue
            _refuse_stranger(entry, old)
            if old.is_retried:  # it is read as it is now, so it does not matter whether it changed
                yield replace(entry, replaces=old.number)
            elif not old.is_deleted and self._is_image_changed(old, entry):
                self.differences.add_changed(entry.key, [old.number])
                if self._embeds_changed:
                    yield entry
            old = next(planned, None)
        while old:
            self._note_missing(old)
            old = next(planned, None)

    def files(self) -> tuple[list[SourceFile], Sorted[ImageEntry]]:
        """The files that no plan has, and changed ones if they must be embedded again; and the images to try again."""
        planned = planned_files(self._view)
        keys = {file.shards[0].uri: key for key, file in planned.items()}
        new, again = [], []
        for file in self._listing.files:
            old = planned.pop(file.key, None)
            if old is None:
                _refuse_second_key(file, keys.get(file.uri))
                new.append(file)
                continue
            _refuse_stranger(file, old.shards[0])
            if self._is_file_changed(old.shards, file):
                self.differences.add_changed(file.key, old.row_ids(self._view).tolist())
                self._note_unread(old.shards)
                if self._embeds_changed:
                    new.append(file)
            elif len(self._retried):
                ids = old.row_ids(self._view)
                again.append(ids[is_among(ids, self._retried)])
        for key, file in planned.items():
            self._note_missing_file(key, file)
        ids = np.sort(np.concatenate(again)) if again else self._retried[:0]
        return new, Sorted(images_of(self._view, ids), _id_before)  # in the order of their files

    def _is_image_changed(self, old: Planned, entry: ImageEntry) -> bool:
        is_same = old.state == image_state(entry, old.text_rules)
        return not is_same or bool(self._check and self._check.is_image_changed(old, entry))

    def _is_file_changed(self, shards: list[Planned], file: SourceFile) -> bool:
        source = self._listing.source
        if any(item.state != file_state(file, source, item.text_rules) for item in shards):
            return True
        return bool(self._check and any(self._check.is_file_changed(shard, source) for shard in shards))

    def _note_missing(self, old: Planned) -> None:
        source = self._listing.source
        if old.shard.ordinal in self._view.committed:
            if old.source.identity == source.identity and not old.is_deleted and self._is_gone(old):
                self.differences.add_gone(old.key)
        elif old.source.location == source.location and self._is_gone(old):
            self.differences.add_lost(old.key)

    def _note_missing_file(self, key: str, file: PlannedFile) -> None:
        if not self._is_gone(file.shards[0]):
            return
        source, old = self._listing.source, file.shards[0].source
        if old.location == source.location and self._note_unread(file.shards):
            self.differences.add_lost(key)
        if old.identity == source.identity and (num_rows := len(file.live_ids(self._view))):
            self.differences.add_gone(key, num_rows)

    def _is_gone(self, old: Planned) -> bool:
        return self._listing.is_gone(old.key, old.uri)

    def _note_unread(self, shards: list[Planned]) -> set[int]:
        unread = {item.shard.ordinal for item in shards if item.state} - self._view.committed.keys()
        self.differences.unread |= unread
        return unread


def _id_before(entry: ImageEntry) -> int:
    return entry.replaces


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
