"""What the plans of a store hold: listed images in the order of their keys, and files with their shards."""

import heapq
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pipeline.planning.changes import Planned, file_state, image_state, key_of
from pipeline.source.access.credentials import bare_entry
from pipeline.source.formats.text import TEXT_RULES
from pipeline.source.sorting import Sorted
from pipeline.store.records import CommitMarker, Plan, Shard
from pipeline.store.tombstones import tombstones_between
from pipeline.store.view import StoreView


@dataclass
class PlannedFile:
    """A file of the newest plan that has it."""

    shards: list[Planned]
    """The state of a dropped shard is None, which equals no file."""
    replaced_by: dict[int, int] = field(default_factory=dict)
    """Rows that were tried again, by the ids of the rows that they replace."""

    def row_ids(self, view: StoreView) -> np.ndarray:
        """Ids (int64, each once) of its rows, also of those that are deleted or replaced."""
        found = [np.fromiter(self.replaced_by.values(), np.int64)]
        for item in self.shards:
            marker = view.committed.get(item.shard.ordinal)
            if marker:
                found.append(np.arange(item.number, item.number + marker.num_images + marker.num_removed))
        return np.concatenate(found)

    def live_ids(self, view: StoreView) -> np.ndarray:
        """Ids (int64, ascending) of its rows that are not tombstoned."""
        ids = self.row_ids(view)
        return np.sort(ids[~is_among(ids, view.deleted)])

    def is_given_up(self, passed_over: np.ndarray) -> bool:
        """Whether it has no live rows and no newer plan, because it changed or disappeared."""
        if all(item.state is None for item in self.shards):
            return True
        found = [tombstones_between(passed_over, item.shard.ids) for item in self.shards]
        again = np.fromiter(self.replaced_by.values(), np.int64)
        found.append(again[is_among(again, passed_over)])
        # a row that was tried again is passed over as well, but the file still counts
        return bool(np.setdiff1d(np.concatenate(found), np.fromiter(self.replaced_by, np.int64)).size)


def planned_entries(view: StoreView, retried: np.ndarray | None = None) -> Iterator[Planned]:
    """Yield the images that plans of folders and lists have, in the order of their keys.

    Args:
        view: The store.
        retried: Ids (int64, ascending) of rows to try again.
    """
    ignored = view.passed_over
    retried = np.empty(0, np.int64) if retried is None else retried
    plans = [plan for plan in view.record.plans if not plan.has_files]
    streams = [_sorted(_entries_of(view, plan, ignored, retried), plan) for plan in plans]
    return heapq.merge(*streams, key=key_of)


def _sorted(planned: Iterator[Planned], plan: Plan) -> Iterator[Planned]:
    """The images of a plan, sorted by key. Without credentials, keys of an earlier plan can be in another order."""
    is_earlier = plan.source.format == "list" and plan.text_rules < TEXT_RULES
    return iter(Sorted(planned, key_of)) if is_earlier else planned


def _entries_of(view: StoreView, plan: Plan, ignored: np.ndarray, retried: np.ndarray) -> Iterator[Planned]:
    for shard in plan.shards:
        out, deleted, again = (
            set(tombstones_between(ids, shard.ids).tolist()) for ids in (ignored, view.deleted, retried)
        )
        for number, entry in enumerate(view.store.entries_of(plan, shard), shard.first_id):
            if number not in out:
                bare = bare_entry(entry)
                yield Planned(
                    key=bare.key,
                    uri=bare.uri,
                    state=image_state(bare, plan.text_rules),
                    source=plan.source,
                    shard=shard,
                    number=number,
                    text_rules=plan.text_rules,
                    is_deleted=number in deleted,
                    is_retried=number in again,
                )


def planned_files(view: StoreView) -> dict[str, PlannedFile]:
    """The files that plans of tars and Parquet have and that were not given up, by key."""
    found: dict[str, PlannedFile] = {}
    for plan in view.record.plans:
        if plan.has_files and not plan.retried:
            found |= _files_of(plan)  # the newest plan of a file wins
    _add_rows_tried_again(view, found)
    ignored = view.passed_over
    return {key: file for key, file in found.items() if not file.is_given_up(ignored)}


def current_markers(view: StoreView) -> list[CommitMarker]:
    """Commit markers, without those of files that were planned again, or that were gone."""
    current = {item.shard.ordinal for file in planned_files(view).values() for item in file.shards}
    shards = [shard for shard in view.record.shards if shard.file is None or shard.ordinal in current]
    return [view.committed[shard.ordinal] for shard in shards if shard.ordinal in view.committed]


def _files_of(plan: Plan) -> dict[str, PlannedFile]:
    found: dict[str, PlannedFile] = {}
    for shard in plan.shards:
        file = shard.file
        item = Planned(
            key=file.key,
            uri=file.uri,
            state=None if shard.is_dropped else file_state(file, plan.source, plan.text_rules),
            source=plan.source,
            shard=shard,
            number=shard.first_id,
            text_rules=plan.text_rules,
        )
        found.setdefault(file.key, PlannedFile([])).shards.append(item)
    return found


def _add_rows_tried_again(view: StoreView, files: dict[str, PlannedFile]) -> None:
    plans = [plan for plan in view.record.plans if plan.has_files and plan.retried]
    if not plans:
        return
    shards = sorted(((item.shard, file) for file in files.values() for item in file.shards), key=_first_id)
    firsts = [shard.first_id for shard, _ in shards]
    owners: dict[int, PlannedFile] = {}  # of rows that were themselves tried again
    for plan in plans:
        for number, entry in enumerate(view.store.entries_of(plan), plan.shards[0].first_id):
            shard, file = shards[max(0, bisect(firsts, entry.replaces) - 1)]
            owner = file if entry.replaces in shard.ids else owners.get(entry.replaces)
            if owner:  # otherwise the row was of an earlier state of its file
                owners[number] = owner
                owner.replaced_by[entry.replaces] = number


def _first_id(pair: tuple[Shard, PlannedFile]) -> int:
    return pair[0].first_id


def is_among(ids: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each id is among the others, which are sorted. Many others cost little, unlike in `np.isin`."""
    return np.searchsorted(others, ids) < np.searchsorted(others, ids, side="right")
