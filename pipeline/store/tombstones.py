"""STORE/tombstones.parquet: ids of rows that no reader shall see. Written whole; a deleted id never comes back."""

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
"""Asked for: the image stays away although its source has it."""
REPLACED = "replaced"
"""Its file changed, and a newer row stands for it."""

_SCHEMA = pa.schema([("id", pa.int64()), ("reason", pa.string()), ("key", pa.string())])


def read_tombstones(store: Store, reason: str | None = None) -> np.ndarray:
    """Ids (int64, ascending) of rows that are gone, all of them or those of one reason.

    Raises:
        StoreError: If the file is damaged.
    """
    table = _read(store)
    if reason:
        table = table.filter(pc.equal(table["reason"], reason))
    return table["id"].to_numpy()


def tombstones_between(tombstones: np.ndarray, ids: range) -> np.ndarray:
    """Those of `read_tombstones` that are in a range of ids, a shard's for example."""
    begin, end = np.searchsorted(tombstones, (ids.start, ids.stop))
    return tombstones[begin:end]


def deleted_keys(store: Store) -> set[str]:
    """Keys of the images that were deleted by their keys, also of those whose rows are no longer in any part.

    Raises:
        StoreError: If the file is damaged.
    """
    return set(_read(store)["key"].drop_null().to_pylist())


def create_tombstones(store: Store) -> None:
    """Write an empty list where there is none: from now on a missing one is a lost one."""
    if not _path(store).exists():
        _write(store, _SCHEMA.empty_table())


def add_tombstones(store: Store, ids: Iterable[int], reason: str, keys: Mapping[int, str] | None = None) -> int:
    """Mark rows as gone; those that are already stay as they are.

    Args:
        store: The store.
        ids: The rows.
        reason: `DELETED` or `REPLACED`.
        keys: Of the rows, where they are to be remembered.

    Returns:
        How many are newly gone.
    """
    table = _read(store)
    new = np.setdiff1d(np.fromiter(ids, np.int64), table["id"].to_numpy())
    if len(new):
        columns = [new, [reason] * len(new), [(keys or {}).get(number) for number in new.tolist()]]
        _write(store, pa.concat_tables([table, pa.table(columns, schema=_SCHEMA)]).sort_by("id"))
    return len(new)


def _path(store: Store) -> Path:
    return store.root / "tombstones.parquet"


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
            f"{path} is lost; put it back from a backup: without it deleted images would be found again"
        ) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(
            f"cannot read {path}: {first_line(error)}; put it back from a backup: without it deleted images "
            "would be found again"
        ) from error
