"""Which rows failed and are to be tried again, and their images. Reads parts, not sources."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.source.entry import ImageEntry
from pipeline.store.parts import kept_rows, read_part
from pipeline.store.tombstones import tombstones_between
from pipeline.store.view import StoreView

_OWN_COLUMNS = ["id", "key", "uri", "caption"]


def failed_rows(view: StoreView, statuses: Collection[str]) -> np.ndarray:
    """Ids (int64, ascending) of the rows with one of these statuses, without those that are deleted or replaced.

    Raises:
        StoreError: If the tombstone file or a part is damaged.
    """
    found = [np.empty(0, np.int64)]
    for marker in view.committed.values():
        if not marker.failed.keys().isdisjoint(statuses):
            table = read_part(view.store.part_of(marker), ["id", "status"])
            found.append(table.filter(pc.is_in(table["status"], pa.array(sorted(statuses))))["id"].to_numpy())
    ids = np.sort(np.concatenate(found))
    return np.setdiff1d(np.setdiff1d(ids, view.deleted), view.passed_over)


def images_of(view: StoreView, ids: np.ndarray) -> Iterator[ImageEntry]:
    """Yield the images of some rows, each with the id of the row that it replaces.

    Args:
        view: The store.
        ids: Ids (int64, ascending) of rows of committed shards.

    Raises:
        StoreError: If a part cannot be read.
    """
    carried = list(view.record.columns)
    for shard in view.record.shards:
        wanted = tombstones_between(ids, shard.ids)
        if not len(wanted):
            continue
        table = read_part(view.store.part_of(view.committed[shard.ordinal]), [*_OWN_COLUMNS, *carried])
        table = kept_rows(table, pc.is_in(table["id"], pa.array(wanted)))
        values = {name: _plain(table[name].combine_chunks()) for name in table.column_names}
        for row in range(table.num_rows):
            number, key, uri, caption = (values[name][row] for name in _OWN_COLUMNS)
            extra = {name: values[name][row] for name in carried} or None
            yield ImageEntry(key, uri, 0, 0, caption=caption, extra=extra, replaces=number)


def _plain(column: pa.Array) -> list[Any]:
    """Values that a list of images can hold: dates and times as integers."""
    if not pa.types.is_temporal(column.type):
        return column.to_pylist()
    return column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64()).to_pylist()
