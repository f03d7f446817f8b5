"""`clipsieve delete`: images are marked as gone by their keys; search leaves them out at once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.durable.lock import store_lock
from pipeline.errors import InputError
from pipeline.settings.store import DeleteSettings
from pipeline.store.layout import Store
from pipeline.store.tombstones import DELETED, add_tombstones, deleted_keys
from pipeline.store.view import StoreView


@dataclass(frozen=True, slots=True)
class DeleteReport:
    """`num_keys` were asked for, `num_before` of them were deleted already; `num_rows` are newly deleted."""

    num_keys: int
    num_before: int
    num_rows: int


def delete(settings: DeleteSettings) -> DeleteReport:
    """Mark the rows of some keys as deleted: all of them, or none if a key is unknown.

    Raises:
        InputError: If the file of keys cannot be read, or names a key that no embedded image has.
        StoreError: If the store cannot be used, or is in use.
    """
    wanted = _read_keys(settings.keys)
    store = Store(settings.store)
    store.read_record()  # a folder that is no store cannot be locked
    with store_lock(store.root):
        view = StoreView.open(settings.store, partial=True)
        rows = {}
        for _, table in view.parts(["id", "key"]):
            pairs = zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True)
            rows |= {number: key for number, key in pairs if key in wanted}
        live = np.setdiff1d(np.array(list(rows), np.int64), view.deleted).tolist()
        live_keys = {rows[number] for number in live}
        unknown = sorted(wanted - live_keys - deleted_keys(store))
        if unknown:
            raise InputError(
                f"{settings.keys} names {len(unknown)} of {len(wanted)} keys that no embedded image of the store "
                f"{store.root} has, first {unknown[0]!r}; nothing was deleted: correct the file"
            )
        num_rows = add_tombstones(store, live, DELETED, rows)
    return DeleteReport(len(wanted), len(wanted - live_keys), num_rows)


def _read_keys(path: Path) -> set[str]:
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"cannot read --keys {path}: {error.strerror}; give a file of keys, one per line") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--keys {path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    keys = {line.removesuffix("\r") for line in lines} - {""}
    if not keys:
        raise InputError(f"--keys {path} is empty; give a file of keys, one per line")
    return keys
