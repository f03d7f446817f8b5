"""`clipsieve delete`: tombstone images, by key or because their source lost them. Search leaves them out at once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.durable.lock import store_lock
from pipeline.errors import InputError, StoreError, UnfinishedStore
from pipeline.planning.missing import find_missing, sources_of
from pipeline.settings.store import DeleteSettings
from pipeline.source.entry import Source
from pipeline.source.formats.lines import read_lines
from pipeline.source.listing import Listing, list_source
from pipeline.store.layout import Store
from pipeline.store.tombstones import DELETED, MISSING, REPLACED, add_tombstones, deleted_keys
from pipeline.store.view import StoreView

MAX_MISSING = 0.1
"""If more than this share of a source's images is gone, the source itself may be incomplete."""

_REMEDY = "make the store writable, or work on a copy of it"


@dataclass(frozen=True, slots=True)
class DeleteReport:
    """`num_keys` were to go, `num_before` of them were already deleted; `num_rows` rows are newly tombstoned."""

    num_keys: int
    num_before: int
    num_rows: int


def delete(settings: DeleteSettings) -> DeleteReport:
    """Tombstone the rows of the given keys, or of the images that are gone from their sources: all of them, or none.

    Raises:
        InputError: If the file of keys cannot be read, or a key matches no embedded image; if a source cannot be
            listed, or too much of it is gone.
        StoreError: If the store cannot be used, or is in use.
    """
    store = Store(settings.store)
    store.read_record()  # a folder that is not a store must not be locked
    if settings.keys is None:
        return _delete_missing(store, settings.yes)
    return _delete_keys(store, settings.keys)


def _delete_keys(store: Store, path: Path) -> DeleteReport:
    wanted = _read_keys(path)
    with store_lock(store.root, _REMEDY):
        # first finish what a killed job left: a row that it tries again is no longer the image's own
        add_tombstones(store, StoreView.open(store.root, partial=True).tried_again, REPLACED)
        view = StoreView.open(store.root, partial=True)
        rows = {}
        for _, table in view.parts(["id", "key"]):
            pairs = zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True)
            rows |= {number: key for number, key in pairs if key in wanted}
        live = np.setdiff1d(np.array(list(rows), np.int64), view.deleted).tolist()
        live_keys = {rows[number] for number in live}
        unknown = sorted(wanted - live_keys - deleted_keys(store))
        if unknown:
            raise InputError(
                f"{len(unknown)} of {len(wanted)} keys in {path} match no embedded image in the store "
                f"{store.root}, first {unknown[0]!r}; nothing was deleted: correct the file"
            )
        num_rows = add_tombstones(store, live, DELETED, rows)
    return DeleteReport(len(wanted), len(wanted - live_keys), num_rows)


def _delete_missing(store: Store, is_confirmed: bool) -> DeleteReport:
    with store_lock(store.root, _REMEDY):
        view = StoreView.now(store, store.read_record())
        if view.record.is_imported:
            raise StoreError(
                f"the store {store.root} holds imported embeddings, whose images --missing cannot look for; delete by "
                "key with --keys FILE"
            )
        if view.missing:
            raise UnfinishedStore(
                f"the store {store.root} is unfinished: {len(view.missing)} of {len(view.record.shards)} shards are "
                "missing; finish it with the same embed command first, then run this one again"
            )
        found = find_missing(view, [_listed(source) for source in sources_of(view)])
        for missing in found:
            if len(missing.ids) > MAX_MISSING * missing.num_rows and not is_confirmed:
                raise InputError(
                    f"{len(missing.ids)} of {missing.num_rows} images of {missing.source.location} are gone, first "
                    f"{missing.first!r}, which is more than {MAX_MISSING:.0%}; nothing was deleted: check that the "
                    "source is complete, then pass --yes"
                )
        ids = [number for missing in found for number in missing.ids]
        keys = {number: row["key"] for number, row in view.rows(ids, ["key"]).items()}
        num_rows = add_tombstones(store, ids, MISSING, keys)
    return DeleteReport(num_rows, 0, num_rows)


def _listed(source: Source) -> Listing:
    try:
        return list_source(source)
    except InputError as error:
        raise InputError(
            "nothing was deleted, because a source of the store cannot be listed (if it is gone for good, delete its "
            f"images with --keys): {error}"
        ) from error


def _read_keys(path: Path) -> set[str]:
    keys = {line for _, line in read_lines(path, "--keys", "a file with one key per line")}
    if not keys:
        raise InputError(f"--keys {path} is empty; pass a file with one key per line")
    return keys
