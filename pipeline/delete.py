"""`clipsieve delete`: tombstone images by key. Search leaves them out immediately."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.durable.lock import store_lock
from pipeline.errors import InputError
from pipeline.settings.store import DeleteSettings
from pipeline.source.formats.lines import read_lines
from pipeline.store.layout import Store
from pipeline.store.tombstones import DELETED, add_tombstones, deleted_keys
from pipeline.store.view import StoreView


@dataclass(frozen=True, slots=True)
class DeleteReport:
    """`num_keys` were requested, `num_before` of them were already deleted; `num_rows` rows are newly tombstoned."""

    num_keys: int
    num_before: int
    num_rows: int


def delete(settings: DeleteSettings) -> DeleteReport:
    """Tombstone the rows of the given keys: all of them, or none if any key is unknown.

    Raises:
        InputError: If the file of keys cannot be read, or a key matches no embedded image.
        StoreError: If the store cannot be used, or is in use.
    """
    wanted = _read_keys(settings.keys)
    store = Store(settings.store)
    store.read_record()  # a folder that is not a store must not be locked
    with store_lock(store.root, "make the store writable, or work on a copy of it"):
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
                f"{len(unknown)} of {len(wanted)} keys in {settings.keys} match no embedded image in the store "
                f"{store.root}, first {unknown[0]!r}; nothing was deleted: correct the file"
            )
        num_rows = add_tombstones(store, live, DELETED, rows)
    return DeleteReport(len(wanted), len(wanted - live_keys), num_rows)


def _read_keys(path: Path) -> set[str]:
    keys = {line for _, line in read_lines(path, "--keys", "a file with one key per line")}
    if not keys:
        raise InputError(f"--keys {path} is empty; pass a file with one key per line")
    return keys
