"""`clipsieve delete` and `clipsieve compact`: rows are marked as gone at once, and taken out of the parts later."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.durable.lock import store_lock
from pipeline.errors import InputError
from pipeline.settings.store import DeleteSettings
from pipeline.store.layout import Store
from pipeline.store.parts import read_part
from pipeline.store.tombstones import DELETED, add_tombstones, deleted_keys, read_tombstones


@dataclass(frozen=True, slots=True)
class DeleteReport:
    """`num_keys` were asked for, `num_before` of them were deleted already; `num_rows` are newly gone."""

    num_keys: int
    num_before: int
    num_rows: int


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
