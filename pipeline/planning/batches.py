"""The images of one planned shard, in the batches they are encoded in."""

from bisect import bisect
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from pipeline.source.access.credentials import KEYRING, bare_entry
from pipeline.source.entry import ImageEntry, SourceFile
from pipeline.source.formats.parquet import cell_uri
from pipeline.source.left_out import ReadNotes
from pipeline.source.reading import read_file, read_listed
from pipeline.store.layout import Store
from pipeline.store.records import Plan, Shard, StoreRecord


def credentials_of(shard: Shard, record: StoreRecord, store: Store) -> dict[str, str]:
    """What this process knows of the credentials that a worker needs to read a shard; see `access.credentials`.

    Raises:
        StoreError: If the plan's list is damaged.
    """
    return KEYRING.of(urls_of(shard, record, store)) if KEYRING else {}


def urls_of(shard: Shard, record: StoreRecord, store: Store) -> Iterator[str]:
    """Yield the URIs that a worker begins with to read a shard. Links inside Parquet files are not among them.

    Raises:
        StoreError: If a plan's list is damaged.
    """
    if shard.file is not None:
        yield shard.file.uri
        return
    plan = record.plan_of(shard)
    entries = store.entries_of(plan, shard)
    if plan.source.format == "parquet":
        yield from {file.uri: None for file, _ in _cells(entries, record, store)}
    else:
        yield from (entry.uri for entry in entries)


def batches_of(
    shard: Shard, record: StoreRecord, store: Store, notes: ReadNotes | None = None
) -> Iterator[list[ImageEntry]]:
    """Yield the images of a shard in the batches they are encoded in.

    `notes`, if given, are those of the shard's file, complete once the last batch is yielded.

    Raises:
        InputError: If the shard's file changed or is damaged.
        StoreError: If the plan's list is damaged.
    """
    plan = record.plan_of(shard)
    if shard.file is None:
        entries = map(bare_entry, store.entries_of(plan, shard))  # plans of earlier versions hold credentials
        if plan.source.format == "parquet":
            entries = _read_cells(list(entries), plan, record, store)
        elif plan.has_files:  # its images are tried again
            entries = read_listed(entries, plan.source)
    else:
        entries = read_file(shard.file, plan.source, shard.start, shard.start + (shard.num_images or 0), notes)
    while batch := list(islice(entries, record.batch_size)):
        yield batch


def _read_cells(entries: list[ImageEntry], plan: Plan, record: StoreRecord, store: Store) -> Iterator[ImageEntry]:
    """Yield rows of Parquet files with what their cells hold: bytes, or the credentials of the link that it is."""
    placed = [
        replace(entry, uri=cell_uri(file.uri, plan.source.image_column, row))
        for entry, (file, row) in zip(entries, _cells(entries, record, store), strict=True)
    ]
    for entry, found in zip(entries, read_listed(placed, plan.source), strict=True):
        # another file by now: the image gets its own reason
        yield found if found.uri == entry.uri else entry


def _cells(entries: Iterable[ImageEntry], record: StoreRecord, store: Store) -> Iterator[tuple[SourceFile, int]]:
    """Yield the file, and the row in it, that each image which is tried again was first read from."""
    shards = record.shards
    firsts = [shard.first_id for shard in shards]
    replaced: dict[int, list[int]] = {}
    for entry in entries:
        number = entry.replaces
        while (shard := shards[bisect(firsts, number) - 1]).file is None:  # it has been tried again before
            if shard.ordinal not in replaced:
                listed = store.entries_of(record.plan_of(shard), shard)
                replaced[shard.ordinal] = [earlier.replaces for earlier in listed]
            number = replaced[shard.ordinal][number - shard.first_id]
        yield shard.file, shard.start + number - shard.first_id
