"""Cut a listing into shards, the units of work, retry and commit. Pure functions."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice

from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats.webdataset import most_images
from pipeline.store.records import Shard

DEFAULT_SHARD_CAPACITY = 10_000
SHARDS_PER_WORKER = 4


def shard_capacity(num_images: int | None, num_workers: int) -> int:
    """Default number of images per shard: 10,000, or fewer so that every worker gets at least 4 shards."""
    if num_images is None:
        return DEFAULT_SHARD_CAPACITY
    return max(1, min(DEFAULT_SHARD_CAPACITY, num_images // (SHARDS_PER_WORKER * num_workers)))


def cut_entries(
    entries: Iterable[ImageEntry], capacity: int, ordinal: int, first_id: int
) -> Iterator[tuple[Shard, list[ImageEntry]]]:
    """Cut entries into shards of `capacity` images; the last can be smaller. Numbering starts at the given numbers."""
    source, start = iter(entries), 0
    while members := list(islice(source, capacity)):
        size = len(members)
        yield (
            Shard(
                ordinal=ordinal,
                shard_id=listing_hash(members),
                first_id=first_id + start,
                room=size,
                num_images=size,
                start=start,
            ),
            members,
        )
        ordinal, start = ordinal + 1, start + size


def cut_files(
    files: Iterable[SourceFile], source: Source, capacity: int, ordinal: int, first_id: int
) -> Iterator[Shard]:
    """Cut files into shards: one per tar, and one per `capacity` rows of a Parquet file."""
    without = {"location", "exclude", "follow_links", "is_signed"}
    if not source.is_caption_column_named:  # ids are as before there was this field
        without.add("is_caption_column_named")
    columns = source.model_dump(exclude=without)
    for file in files:
        if file.num_rows is None:
            pieces = [(0, None, most_images(file))]
        else:
            sizes = [(start, min(capacity, file.num_rows - start)) for start in range(0, file.num_rows, capacity)]
            pieces = [(start, size, size) for start, size in sizes]
        for start, size, room in pieces:
            identity = (file.key, file.num_bytes, file.mtime_ns, columns, start, size)
            yield Shard(
                ordinal=ordinal,
                shard_id=hashlib.sha256(repr(identity).encode()).hexdigest()[:32],
                first_id=first_id,
                room=room,
                num_images=size,
                start=start,
                file=file,
            )
            ordinal, first_id = ordinal + 1, first_id + room


def listing_hash(entries: Iterable[ImageEntry]) -> str:
    """Hash of keys and states. Does not depend on the location of the source."""
    digest = hashlib.sha256()
    for entry in entries:
        # repr quotes text, so different lists give different bytes
        digest.update(repr((entry.key, *entry.state)).encode())
    return digest.hexdigest()[:32]
