"""Refuse what cannot be added to a store, before anything starts: repeated keys, and columns that hold no text."""

import heapq
from collections.abc import Iterable, Iterator
from itertools import pairwise
from operator import itemgetter

import numpy as np

from pipeline.errors import InputError
from pipeline.planning.changes import Differences
from pipeline.planning.compare import Comparison
from pipeline.settings.embed import OnChange
from pipeline.source.access.location import examine
from pipeline.source.entry import Source, SourceFile
from pipeline.source.listing import Listing
from pipeline.source.sorting import Sorted
from pipeline.store.layout import Store
from pipeline.store.parts import read_part
from pipeline.store.records import Plan, Shard
from pipeline.store.tombstones import tombstones_between
from pipeline.store.view import StoreView

_Key = tuple[str, str | None, int | None]
"""A key, the URI of its image or file (None in the store), and its row in the file or its id in the store."""


def refuse_new_keys(listing: Listing, store: Store, on_change: OnChange = "stop") -> None:
    """Check the keys that a listing adds to a store. Reads the key columns of new files, and changes nothing.

    Keys are compared if a key column gave some of them, in the listing or in the store; otherwise a key names its file
    and row. Tars are not opened. Memory does not grow with the number of keys.

    Args:
        listing: What the source holds now.
        store: The store, if there is one at its place yet.
        on_change: What will be done about changed files.

    Raises:
        InputError: If a key occurs twice, or a column of keys or captions has a type that is of no use.
    """
    view = StoreView.now(store, store.read_record()) if store.record_path.exists() else None
    sources = [listing.source, *(plan.source for plan in (view.record.plans if view else ()))]
    has_keys = any(source.key_column for source in sources)
    if listing.source.format == "webdataset" or not (has_keys or listing.faults):
        return
    comparison = Comparison(view, listing, on_change, checks_content=False) if view else None
    if listing.entries is None:
        files = comparison.new_files() if comparison else listing.files
        fault = next((listing.faults[file.key] for file in files if file.key in listing.faults), None)
        if fault:
            raise InputError(fault)
        new = Sorted(_keys_of_files(files, listing.source), itemgetter(0))
    elif comparison:
        new = Sorted(((entry.key, entry.uri, None) for entry in comparison.new_entries()), itemgetter(0))
    else:
        return  # a listing of images has no key twice
    if has_keys and len(new):
        gone = comparison.differences if comparison and on_change == "embed" else Differences()
        live = Sorted(_live_keys(view, gone) if view else (), itemgetter(0))
        _refuse_repeated(heapq.merge(live, new, key=itemgetter(0)), store)


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
    from pipeline.source.formats.parquet import read_keys

    marker = view.committed.get(shard.ordinal)
    if marker:
        table = read_part(view.store.part_of(marker), ["id", "key"])
        return zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True)
    if shard.file is None:
        return enumerate((entry.key for entry in view.store.entries_of(plan, shard)), shard.first_id)
    if shard.num_images is None or not _is_intact(shard.file):
        return ()
    keys = read_keys(shard.file, plan.source, shard.start, shard.start + shard.num_images)
    return ((shard.first_id + row - shard.start, key) for row, key in keys)


def _is_intact(file: SourceFile) -> bool:
    """Whether a file is as it was planned. If not, the comparison with the plan says so."""
    try:
        return examine(file.uri) == (file.num_bytes, file.mtime_ns)
    except InputError:
        return False


def _refuse_repeated(keys: Iterable[_Key], store: Store) -> None:
    """Refuse new keys that occur before; rows that are in the store already are let be."""
    for one, other in pairwise(keys):
        if one[0] == other[0] and other[1] is not None:
            raise InputError(
                f"{_place(other, store)} has the key {other[0]!r}, which {_place(one, store)} has too; keys must be "
                "unique: pass another --key-column, or a --key-prefix if two sources use the same keys"
            )


def _place(item: _Key, store: Store) -> str:
    _, uri, row = item
    if uri is None:
        return f"row {row} of the store {store.root}"
    return uri if row is None else f"row {row} of {uri}"
