"""`clipsieve compact`: remove deleted and replaced rows from the parts."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.durable.lock import store_lock
from pipeline.settings.store import CompactSettings
from pipeline.source.entry import Status
from pipeline.store.commit_markers import commit_shard
from pipeline.store.layout import Store
from pipeline.store.parts import kept_rows, read_part_checked
from pipeline.store.records import CommitMarker
from pipeline.store.tombstones import tombstones_between
from pipeline.store.view import StoreView


@dataclass(frozen=True, slots=True)
class CompactReport:
    """Counts of rows removed, parts rewritten and bytes saved."""

    num_rows: int
    num_parts: int
    num_bytes: int


def compact(settings: CompactSettings) -> CompactReport:
    """Rewrite each part that holds deleted or replaced rows, without those rows.

    Writing the commit marker switches from the old part to the new one. A kill at any moment leaves a whole store;
    the next run removes leftover files.

    Raises:
        UnfinishedStore: If shards are missing.
        StoreError: If a part is damaged, or the store cannot be written, or is in use.
    """
    store = Store(settings.store)
    store.read_record()  # a folder that is not a store must not be locked
    num_rows = num_parts = num_bytes = 0
    with store_lock(store.root, "make the store writable, or work on a copy of it"):
        view = StoreView.open(settings.store)
        markers = dict(view.committed)
        for shard in view.record.shards:
            old = markers[shard.ordinal]
            deleted = tombstones_between(view.deleted, shard.ids)
            if len(deleted) == old.num_removed:  # already removed
                continue
            new = markers[shard.ordinal] = _without(store, old, deleted)
            store.part_of(old).unlink()
            num_parts += 1
            num_rows += old.num_images - new.num_images
            num_bytes += old.num_bytes - new.num_bytes
        current = {store.part_of(marker) for marker in markers.values()}
        for path in set(store.embeddings_dir.glob("part-*.parquet")) - current:
            path.unlink()  # left by a job that was killed
    return CompactReport(num_rows, num_parts, num_bytes)


def _without(store: Store, old: CommitMarker, deleted: np.ndarray) -> CommitMarker:
    table = read_part_checked(store.part_of(old), old.sha256)
    table = kept_rows(table, pa.array(~np.isin(table["id"].to_numpy(), deleted)))
    failed = Counter(table["status"].to_pylist())
    num_ok = failed.pop(Status.OK, 0)
    fields = {
        "num_images": table.num_rows,
        "num_ok": num_ok,
        "failed": dict(sorted(failed.items())),
        "compaction": old.compaction + 1,
        "num_removed": old.num_removed + old.num_images - table.num_rows,
    }
    return commit_shard(store, table, old.model_dump(exclude={"sha256", "num_bytes"}) | fields)
