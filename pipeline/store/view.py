"""A snapshot of a store: opened once, then passed along."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.durable.lock import other_job
from pipeline.errors import UnfinishedStore
from pipeline.source.entry import Status
from pipeline.store.commit_markers import committed_markers
from pipeline.store.layout import Store
from pipeline.store.parts import kept_rows, read_part
from pipeline.store.records import CommitMarker, Shard, StoreRecord
from pipeline.store.tombstones import PASSED_OVER, read_tombstones, tombstones_between


@dataclass(frozen=True)
class Counts:
    """Images by outcome, each once: a row does not count if a newer one replaces it, or if its image was gone."""

    num_ok: int
    failed: dict[str, int]
    """Number of images without an embedding, by status."""

    @property
    def num_images(self) -> int:
        """All of them."""
        return self.num_ok + sum(self.failed.values())


@dataclass(frozen=True)
class StoreView:
    """A store's record and committed shards at the time the view was made."""

    store: Store
    record: StoreRecord
    committed: dict[int, CommitMarker]
    """Commit markers, by shard ordinal."""

    @classmethod
    def open(cls, root: Path, partial: bool | None = None) -> "StoreView":
        """Open a finished store. If `partial`, one committed shard is enough; None if the user has no such choice.

        Raises:
            StoreError: If there is no store, or its record is damaged.
            UnfinishedStore: If shards are missing. The message has the counts.
        """
        store = Store(root)
        view = cls.now(store, store.read_record())
        view._refuse_unfinished(partial)
        return view

    @classmethod
    def now(cls, store: Store, record: StoreRecord) -> "StoreView":
        """View of a store whose record is already known, finished or not."""
        return cls(store, record, committed_markers(store, record))

    @property
    def root(self) -> Path:
        """The store's folder."""
        return self.store.root

    @property
    def missing(self) -> list[Shard]:
        """The shards that are not committed, in the order of their ids."""
        return [shard for shard in self.record.shards if shard.ordinal not in self.committed]

    @cached_property
    def deleted(self) -> np.ndarray:
        """Ids (int64, ascending) of deleted and replaced rows. Readers must not show them.

        Raises:
            StoreError: If the tombstone file is damaged.
        """
        return read_tombstones(self.store)

    @cached_property
    def counts(self) -> Counts:
        """The images of all committed shards; see `count`."""
        return self.count(self.record.shards)

    def count(self, shards: Iterable[Shard]) -> Counts:
        """The images of some shards, as far as they are committed. Reads the parts that hold rows that do not count.

        Raises:
            StoreError: If the tombstone file or a part is damaged.
        """
        found: Counter[str] = Counter()
        for shard in shards:
            marker = self.committed.get(shard.ordinal)
            if marker is None:
                continue
            found.update({Status.OK: marker.num_ok, **marker.failed})
            deleted = tombstones_between(self.deleted, shard.ids)
            ids = tombstones_between(self._tombstones_passed_over, shard.ids)
            if len(ids) and len(deleted) > marker.num_removed:  # not yet compacted
                table = read_part(self.store.part_of(marker), ["id", "status"])
                found.subtract(table.filter(pc.is_in(table["id"], pa.array(ids)))["status"].to_pylist())
        failed = {status: count for status, count in sorted(found.items()) if count and status != Status.OK}
        return Counts(found[Status.OK], failed)

    @property
    def num_planned(self) -> int | None:
        """Number of planned images, each once. None if a shard is not counted yet."""
        total = self.record.num_images
        return None if total is None else total - self.num_passed_over

    @cached_property
    def passed_over(self) -> np.ndarray:
        """Ids (int64, ascending) of rows that do not count as planned, even if compaction has removed them.

        A newer row replaces them, or their image was gone.

        Raises:
            StoreError: If the tombstone file or a plan's list is damaged.
        """
        return np.union1d(self._tombstones_passed_over, self.tried_again)

    @cached_property
    def _tombstones_passed_over(self) -> np.ndarray:
        return read_tombstones(self.store, *PASSED_OVER)

    @cached_property
    def num_passed_over(self) -> int:
        """Number of rows of committed shards that do not count as planned."""
        shards = [shard for shard in self.record.shards if shard.ordinal in self.committed]
        return sum(len(tombstones_between(self.passed_over, shard.ids)) for shard in shards)

    @cached_property
    def tried_again(self) -> np.ndarray:
        """Ids (int64) of the rows that the last plan tries again. If a job was killed, they may lack their tombstones.

        Raises:
            StoreError: If the plan's list is damaged.
        """
        plans = self.record.plans
        entries = self.store.entries_of(plans[-1]) if plans and plans[-1].retried else ()
        return np.fromiter((entry.replaces for entry in entries), np.int64)

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[tuple[CommitMarker, pa.Table]]:
        """Yield the marker and rows of each committed shard in id order, including deleted rows.

        Raises:
            StoreError: If a part cannot be read.
        """
        for _, marker in sorted(self.committed.items()):
            yield marker, read_part(self.store.part_of(marker), columns)

    def rows(self, ids: Iterable[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Some rows, by id, with the values of some columns. Reads only the parts that contain them.

        Raises:
            StoreError: If a part cannot be read.
        """
        wanted, shards, found = np.unique(np.fromiter(ids, np.int64)), self.record.shards, {}
        places = np.searchsorted([shard.first_id for shard in shards], wanted, side="right") - 1
        for place in np.unique(places):
            marker, ids = self.committed[shards[place].ordinal], tombstones_between(wanted, shards[place].ids)
            table = read_part(self.store.part_of(marker), ["id", *columns])
            for row in kept_rows(table, pc.is_in(table["id"], pa.array(ids))).to_pylist():
                found[row.pop("id")] = row
        return found

    def _refuse_unfinished(self, partial: bool | None) -> None:
        num_missing = len(self.missing)
        if self.committed and (partial or not num_missing):
            return
        done = sum(marker.num_images for marker in self.committed.values())
        total = "an unknown number of" if self.record.num_images is None else self.record.num_images
        writer = other_job(self.root)
        advice = f"wait for {writer}, which is writing it" if writer else f"{self.record.same_command} to finish it"
        if self.committed and partial is not None:
            advice += ", or pass --partial"
        raise UnfinishedStore(
            f"the store {self.root} is unfinished: {len(self.committed)} of {len(self.record.shards)} shards, "
            f"{done} of {total} images; {advice}"
        )
