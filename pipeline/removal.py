"""`clipsieve delete` and `clipsieve compact`: rows are marked as gone at once, and taken out of the parts later."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError, StoreError
from pipeline.lock import store_lock
from pipeline.records import ShardStats
from pipeline.schema import read_part
from pipeline.store import Store, sha256_of
from pipeline.store_settings import CompactSettings, DeleteSettings
from pipeline.tombstones import DELETED, add_tombstones, deleted_keys, read_tombstones, tombstones_between


@dataclass(frozen=True, slots=True)
class DeleteReport:
    """`num_keys` were asked for, `num_before` of them were deleted already; `num_rows` are newly gone."""

    num_keys: int
    num_before: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class CompactReport:
    """Rows taken out, parts written anew, and bytes that the parts are smaller now."""

    num_rows: int
    num_parts: int
    num_bytes: int


def delete(settings: DeleteSettings) -> DeleteReport:
    """Mark the rows of some keys as gone, all of them or none.

    Raises:
        InputError: If the file of keys cannot be read, or names a key that no embedded image has.
        StoreError: If the store cannot be used, or is in use.
    """
    wanted = _read_keys(settings.keys)
    store = Store(settings.store)
    store.read_run()  # a folder that is no store cannot be locked
    with store_lock(store.root):
        committed = store.require_finished(store.read_run(), partial=True)
        rows = {}
        for stats in committed.values():
            table = read_part(store.part_of(stats), ["id", "key"])
            pairs = zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True)
            rows |= {number: key for number, key in pairs if key in wanted}
        living = np.setdiff1d(np.array(list(rows), np.int64), read_tombstones(store)).tolist()
        living_keys = {rows[number] for number in living}
        unknown = sorted(wanted - living_keys - deleted_keys(store))
        if unknown:
            raise InputError(
                f"{settings.keys} names {len(unknown)} of {len(wanted)} keys that no embedded image of the store "
                f"{store.root} has, first {unknown[0]!r}; nothing was deleted: correct the file"
            )
        num_rows = add_tombstones(store, living, DELETED, rows)
    return DeleteReport(len(wanted), len(wanted - living_keys), num_rows)


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


def _without(store: Store, old: ShardStats, buried: np.ndarray) -> ShardStats:
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


def _read_keys(path: Path) -> set[str]:
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"cannot read --keys {path}: {error.strerror}; give a file of keys, one a line") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--keys {path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    keys = {line.removesuffix("\r") for line in lines} - {""}
    if not keys:
        raise InputError(f"--keys {path} is empty; give a file of keys, one a line")
    return keys
