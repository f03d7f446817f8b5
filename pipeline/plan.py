"""Cut a listing into shards, the units of work, retry and commit. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.source import ImageEntry

DEFAULT_SHARD_CAPACITY = 10_000
SHARDS_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive entries of the listing; `shard_id` is a hash of their keys, sizes and times."""

    ordinal: int
    shard_id: str
    entries: tuple[ImageEntry, ...]


def shard_capacity(num_images: int, num_workers: int) -> int:
    """Default images per shard: 10,000, or fewer so that every worker has at least 4 shards to do."""
    return max(1, min(DEFAULT_SHARD_CAPACITY, num_images // (SHARDS_PER_WORKER * num_workers)))


def plan_shards(entries: Sequence[ImageEntry], capacity: int) -> list[Shard]:
    """Cut `entries` into shards of `capacity` images, the last one possibly smaller."""
    shards = []
    for ordinal, start in enumerate(range(0, len(entries), capacity)):
        members = tuple(entries[start : start + capacity])
        shards.append(Shard(ordinal=ordinal, shard_id=_listing_hash(members), entries=members))
    return shards


def _listing_hash(entries: Sequence[ImageEntry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        # repr quotes the text, so that no two lists give one byte string
        digest.update(repr((entry.key, entry.num_bytes, entry.mtime_ns, entry.caption)).encode())
    return digest.hexdigest()[:32]
