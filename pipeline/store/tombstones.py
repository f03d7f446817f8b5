"""STORE/tombstones.parquet: ids of rows that readers must not show. Written whole; tombstones are never removed."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.durable.atomic import write_atomically
from pipeline.durable.seal import UNSEALED, check_seal, sealed
from pipeline.errors import StoreError, first_line
from pipeline.store.layout import Store

DELETED = "deleted"
"""Deleted on request: the image stays out of the store although its source still has it.

An image in a tar or Parquet file returns with its file if the whole file is embedded again: because the file changed,
or was gone, its other images were deleted as missing, and it returned.
"""
REPLACED = "replaced"
"""Its file changed or it was tried again, and a newer row replaces it."""
MISSING = "missing"
"""Its image was gone from the source. If it returns, it is embedded again."""
PASSED_OVER = (REPLACED, MISSING)
"""Rows that do not count, and that do not keep their image from being embedded again."""

TOMBSTONES_FILE = "tombstones.parquet"

_SCHEMA = pa.schema([("id", pa.int64()), ("reason", pa.string()), ("key", pa.string())])


def read_tombstones(store: Store, *reasons: str) -> np.ndarray:
    """Ids (int64, ascending) of tombstoned rows: all of them, or those with one of the reasons.

    Raises:
        StoreError: If the file is damaged.
    """
    table = _read(store)
    if reasons:
        table = table.filter(pc.is_in(table["reason"], pa.array(reasons)))
    return table["id"].to_numpy()


def tombstones_between(tombstones: np.ndarray, ids: range) -> np.ndarray:
    """The ids from `read_tombstones` that are in a range, for example a shard's."""
    begin, end = np.searchsorted(tombstones, (ids.start, ids.stop))
    return tombstones[begin:end]


def deleted_keys(store: Store) -> set[str]:
    """Keys of the images that were deleted, even if compaction has removed their rows.

    Raises:
        StoreError: If the file is damaged.
    """
    return set(_read(store)["key"].drop_null().to_pylist())


def create_tombstones(store: Store) -> None:
    """Write an empty file if there is none. From then on, a missing file is an error."""
    if not _path(store).exists():
        _write(store, _SCHEMA.empty_table())


def add_tombstones(store: Store, ids: Iterable[int], reason: str, keys: Mapping[int, str] | None = None) -> int:
    """Tombstone rows. Existing tombstones stay unchanged.

    Args:
        store: The store.
        ids: The rows.
        reason: `DELETED`, `REPLACED` or `MISSING`.
        keys: Keys to keep with the tombstones, by id.

    Returns:
        Number of new tombstones.
    """
    table = _read(store)
    new = np.setdiff1d(np.fromiter(ids, np.int64), table["id"].to_numpy())
    if len(new):
        columns = [new, [reason] * len(new), [(keys or {}).get(number) for number in new.tolist()]]
        _write(store, pa.concat_tables([table, pa.table(columns, schema=_SCHEMA)]).sort_by("id"))
    return len(new)


def _path(store: Store) -> Path:
    return store.root / TOMBSTONES_FILE


def _write(store: Store, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"seal": UNSEALED}), sink, compression="zstd")
    data = sealed(sink.getvalue().to_pybytes())
    write_atomically(_path(store), lambda temporary: temporary.write_bytes(data))


def _read(store: Store) -> pa.Table:
    path = _path(store)
    try:
        data = path.read_bytes()
        check_seal(data)
        return pq.read_table(pa.BufferReader(data)).replace_schema_metadata(None)
    except FileNotFoundError as error:
        if not any(store.plan_dir.glob("*.json")):
            return _SCHEMA.empty_table()
        raise StoreError(
            f"{path} is missing; restore it from a backup: without it, deleted images would be found again"
        ) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(
            f"cannot read {path}: {first_line(error)}; restore it from a backup: without it, deleted images "
            "would be found again"
        ) from error
