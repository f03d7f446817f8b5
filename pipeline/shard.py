"""One shard from listing to commit: the stage a worker runs. A plain function; runs and is tested without Ray."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

import numpy as np

from pipeline.encode import Encoder
from pipeline.plan import Shard
from pipeline.schema import ImageRecord, part_table
from pipeline.source import ImageEntry
from pipeline.store import RunRecord, ShardStats, Store

Decoded = tuple[np.ndarray, list[ImageRecord]]


def embed_shard(
    shard: Shard,
    record: RunRecord,
    store: Store,
    encoder: Encoder,
    decode: Callable[[Iterable[Sequence[ImageEntry]]], Iterator[Decoded]],
    on_batch: Callable[[int], None] = lambda num_images: None,
) -> ShardStats:
    """Decode, encode and commit one shard.

    Batches are cut from the plan, never from arrival order, and a failed image keeps its slot: the bytes of the part
    do not depend on who computes it, or on how often.

    Args:
        shard: What to embed.
        record: The run it belongs to.
        store: Where to commit.
        encoder: Turns pixels into embeddings.
        decode: Maps batches of entries to decoded batches, in order; may work ahead.
        on_batch: Told the number of images after each batch.
    """
    timings = {"decode_wait_s": 0.0, "encode_s": 0.0, "write_s": 0.0}
    records: list[ImageRecord] = []
    embeddings: list[np.ndarray] = []
    size = record.batch_size
    batches = (shard.entries[start : start + size] for start in range(0, len(shard.entries), size))
    clock = _Clock(timings)
    for pixels, batch_records in decode(batches):
        clock.lap("decode_wait_s")
        embeddings.append(encoder.encode(pixels))
        records.extend(batch_records)
        clock.lap("encode_s")
        on_batch(len(batch_records))
    first_id = shard.ordinal * record.shard_capacity
    table = part_table(
        records, np.concatenate(embeddings), first_id, encoder.tokens_kept, record.encoder, shard.shard_id
    )
    clock.lap("write_s")
    failed = [image.status for image in records if image.status != "ok"]
    stats = {
        "ordinal": shard.ordinal,
        "shard_id": shard.shard_id,
        "fingerprint": record.fingerprint,
        "num_images": len(records),
        "num_ok": len(records) - len(failed),
        "failed": {status: failed.count(status) for status in sorted(set(failed))},
        "timings_s": timings,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return store.commit_shard(table, stats)


class _Clock:
    def __init__(self, timings: dict[str, float]) -> None:
        self._timings = timings
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._timings[stage] += now - self._last
        self._last = now
