"""The images of one planned shard, in the batches they are encoded in."""

from collections.abc import Iterator
from itertools import islice

from pipeline.source.access.credentials import KEYRING
from pipeline.source.entry import ImageEntry
from pipeline.source.left_out import ReadNotes
from pipeline.source.reading import read_file, read_listed
from pipeline.store.layout import Store
from pipeline.store.records import Shard, StoreRecord


def credentials_of(shard: Shard, record: StoreRecord, store: Store) -> dict[str, str]:
    """What this process knows of the credentials that a worker needs to read a shard; see `access.credentials`.

    Raises:
        StoreError: If the plan's list is damaged.
    """
    if not KEYRING:
        return {}
    if shard.file is not None:
        return KEYRING.of([shard.file.uri])
    return KEYRING.of(entry.uri for entry in store.entries_of(record.plan_of(shard), shard))


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
        entries = store.entries_of(plan, shard)
        if plan.has_files:  # its images are tried again
            entries = read_listed(entries, plan.source)
    else:
        entries = read_file(shard.file, plan.source, shard.start, shard.start + (shard.num_images or 0), notes)
    while batch := list(islice(entries, record.batch_size)):
        yield batch
