"""TODO."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.durable.lock import store_lock
from pipeline.errors import StoreError
from pipeline.settings.store import CompactSettings
from pipeline.store.layout import Store, sha256_of
from pipeline.store.parts import read_part
from pipeline.store.records import CommitMarker
from pipeline.store.tombstones import read_tombstones, tombstones_between


@dataclass(frozen=True, slots=True)
class CompactReport:
    """Rows taken out, parts written anew, and bytes that the parts are smaller now."""

    num_rows: int
    num_parts: int
    num_bytes: int


def compact(settings: CompactSettings) -> CompactReport:
    """Write the parts that hold deleted or replaced rows anew without them.

    The marker is the switch from the old part to the new one: a kill at any moment leaves a whole store, and what it
    leaves behind is removed the next time.

    Raises:
        UnfinishedStore: If shards are missing.
        StoreError: If a part is damaged, or the store cannot be written, or is in use.
    """
    store = Store(settings.store)
    store.read_run()
    num_rows = num_parts = num_bytes = 0
    with store_lock(store.root):
        record = store.read_run()
        committed = store.require_finished(record, partial=False)
        gone = read_tombstones(store)
        for shard in record.shards:
            old = committed[shard.ordinal]
            buried = tombstones_between(gone, shard.first_id, shard.first_id + shard.room)
            if len(buried) == old.num_removed:  # they are out already
                continue
            new = committed[shard.ordinal] = _without(store, old, buried)
            store.part_of(old).unlink()
            num_parts += 1
            num_rows += old.num_images - new.num_images
            num_bytes += old.num_bytes - new.num_bytes
        current = {store.part_of(stats) for stats in committed.values()}
        for path in set(store.embeddings_dir.glob("part-*.parquet")) - current:
            path.unlink()  # of a job that was killed
    return CompactReport(num_rows, num_parts, num_bytes)


def _without(store: Store, old: CommitMarker, buried: np.ndarray) -> CommitMarker:
    path = store.part_of(old)
    if sha256_of(path) != old.sha256:
        raise StoreError(f"{path} is damaged: its bytes are not those of its stats file; remove both, embed again")
    table = read_part(path)
    table = table.filter(pa.array(~np.isin(table["id"].to_numpy(), buried)))
    failed = Counter(table["status"].to_pylist())
    num_ok = failed.pop("ok", 0)
    now = {
        "num_images": table.num_rows,
        "num_ok": num_ok,
        "failed": dict(sorted(failed.items())),
        "compaction": old.compaction + 1,
        "num_removed": old.num_removed + old.num_images - table.num_rows,
    }
    return store.commit_shard(table, old.model_dump(exclude={"sha256", "num_bytes"}) | now)
