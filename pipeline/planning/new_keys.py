"""Refuse what cannot be added to a store, before anything starts: repeated keys, and columns that hold no text."""

import heapq
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, pairwise
from operator import itemgetter

import numpy as np

from pipeline.errors import InputError
from pipeline.planning.changes import Differences
from pipeline.source.access.location import examine
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.listing import Listing
from pipeline.source.sorting import Sorted
from pipeline.store.parts import read_part
from pipeline.store.records import Plan, Shard
from pipeline.store.tombstones import tombstones_between
from pipeline.store.view import StoreView

_Key = tuple[str, str | None, int | None]
"""A key, the URI of its image or file (None in the store), and its row in the file or its id in the store."""


def refuse_keys(
    view: StoreView | None,
    listing: Listing,
    files: Iterable[SourceFile],
    entries: Iterable[ImageEntry] = (),
    gone: Differences | None = None,
) -> None:
    """Check the keys of new files and images. Memory does not grow with their number.

    Keys are compared if a key column gave some of them, in the listing or in the store; otherwise a key names its file
    and row. Tars are not opened.

    Args:
        view: The store, if there is one yet.
        listing: The listing that they are of.
        files: The new files.
        entries: The new images, each with another key.
        gone: What is about to leave the store.

    Raises:
        InputError: If a key occurs twice, or a column of keys or captions has a type that is of no use.
    """
    fault = next((listing.faults[file.key] for file in files if file.key in listing.faults), None)
    if fault:
        raise InputError(fault)
    if listing.source.format == "webdataset" or not _has_keys(view, listing.source):
        return
    found: Iterable[_Key] = ((entry.key, entry.uri, None) for entry in entries)
    new = Sorted(chain(found, _keys_of_files(files, listing.source)), itemgetter(0))
    if len(new):
        live = Sorted(_live_keys(view, gone or Differences()) if view else (), itemgetter(0))
        _refuse_repeated(heapq.merge(live, new, key=itemgetter(0)))


def _has_keys(view: StoreView | None, source: Source) -> bool:
    plans = view.record.plans if view else ()
    return any(source.key_column for source in (source, *(plan.source for plan in plans)))


def _keys_of_files(files: Iterable[SourceFile], source: Source) -> Iterator[_Key]:
    from pipeline.source.formats.parquet import read_keys

    for file in files:
        yield from ((key, file.uri, row) for row, key in read_keys(file, source, 0, file.num_rows or 0))


def _live_keys(view: StoreView, gone: Differences) -> Iterator[_Key]:
    """Yield the keys of the store's rows, written or planned, without deleted ones and those that will be replaced."""
    without = np.union1d(view.deleted, np.asarray(gone.ids, np.int64))
    for plan in view.record.plans:
        for shard in plan.shards:
            if not (shard.is_dropped or shard.ordinal in gone.unread):
                absent = set(tombstones_between(without, shard.ids).tolist())
                keys = _keys_of_shard(view, plan, shard)
                yield from ((key, None, number) for number, key in keys if number not in absent)


def _keys_of_shard(view: StoreView, plan: Plan, shard: Shard) -> Iterable[tuple[int, str]]:
    """Ids and keys of the rows of a shard. Those of a tar that is not embedded yet are not known."""
    marker = view.committed.get(shard.ordinal)
    if marker:
        table = read_part(view.store.part_of(marker), ["id", "key"])
        return zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True)
    if shard.file is None:
        return enumerate((entry.key for entry in view.store.entries_of(plan, shard)), shard.first_id)
    return () if shard.num_images is None else _keys_planned(plan, shard, shard.file)


def _keys_planned(plan: Plan, shard: Shard, file: SourceFile) -> Iterator[tuple[int, str]]:
    from pipeline.source.formats.parquet import read_keys

    with suppress(InputError):  # a file that changed or is damaged gives no rows, and is named elsewhere
        if examine(file.uri) == (file.num_bytes, file.mtime_ns):
            for row, key in read_keys(file, plan.source, shard.start, shard.start + (shard.num_images or 0)):
                yield shard.first_id + row - shard.start, key


def _refuse_repeated(keys: Iterable[_Key]) -> None:
    """Refuse new keys that occur before; rows that are in the store already are let be."""
    for one, other in pairwise(keys):
        if one[0] == other[0] and other[1] is not None:
            raise InputError(
                f"{_place(other)} has the key {other[0]!r}, which {_place(one)} has too; keys must be "
                "unique: pass another --key-column, or a --key-prefix if two sources use the same keys"
            )


def _place(item: _Key) -> str:
    _, uri, row = item
    if uri is None:
        return f"row {row} of the store"
    return uri if row is None else f"row {row} of {uri}"
