"""One shard from plan to commit: the stage a worker runs. A plain function; runs and is tested without Ray."""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

import numpy as np

from pipeline.errors import InputError
from pipeline.model.encode import Encoder
from pipeline.pixels.to_device import Decoded
from pipeline.planning.batches import batches_of
from pipeline.source.entry import ImageEntry, ImageResult
from pipeline.store.layout import Store
from pipeline.store.parts import part_table
from pipeline.store.records import CommitMarker, Shard, StoreRecord
from pipeline.workers.canary import Canary


def embed_shard(
    shard: Shard,
    record: StoreRecord,
    store: Store,
    encoder: Encoder,
    decode: Callable[[Iterable[Sequence[ImageEntry]]], Iterator[Decoded]],
    on_batch: Callable[[int, int], None] = lambda num_images, num_failed: None,
    canary: Canary | None = None,
) -> CommitMarker:
    """Read, decode, encode and commit one shard.

    Batches are cut from the plan, never from arrival order, and a failed image keeps its slot: the bytes of the part
    do not depend on who computes it, or on how often.

    Args:
        shard: What to embed.
        record: The run it belongs to.
        store: Where to commit.
        encoder: Turns pixels into embeddings.
        decode: Maps batches of entries to decoded batches, in order; may work ahead.
        on_batch: Told the number of images, and of failed ones among them, after each batch.
        canary: Watches some of the images.

    Raises:
        InputError: If the file that the shard stands for is damaged, or names a key twice.
        StoreError: If the part cannot be written.
    """
    timings = dict.fromkeys(("decode_cpu_s", "decode_wait_s", "transfer_s", "encode_s", "encode_cpu_s", "write_s"), 0.0)
    records: list[ImageResult] = []
    embeddings = [np.empty((0, record.encoder.embedding_dim), np.float32)]
    num_halvings, transfer_s, cpu_s = encoder.num_halvings, encoder.transfer_s, time.process_time()
    clock = _Clock(timings)
    if canary:
        canary.summary()  # what a shard before this one left that was not finished
    for pixels, batch_records, decode_cpu_s in decode(batches_of(shard, record, store)):
        clock.lap("decode_wait_s")
        timings["decode_cpu_s"] += decode_cpu_s
        embeddings.append(encoder.encode(pixels))
        clock.lap("encode_s")
        if canary:
            watch_s = time.process_time()
            canary.watch(batch_records, pixels, embeddings[-1])
            cpu_s += time.process_time() - watch_s
            clock.skip()
        records.extend(batch_records)
        on_batch(len(batch_records), sum(image.status != "ok" for image in batch_records))
    _check(shard, records)
    table = part_table(
        records,
        np.concatenate(embeddings),
        shard.first_id,
        encoder.tokens_kept,
        record.encoder,
        shard.shard_id,
        record.columns,
    )
    clock.lap("write_s")
    timings["transfer_s"] = encoder.transfer_s - transfer_s
    timings["encode_cpu_s"] = time.process_time() - cpu_s
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
        "host": platform.node(),
        "micro_batch": encoder.micro_batch,
        "num_halvings": encoder.num_halvings - num_halvings,
        "canary": canary.summary() if canary else None,
    }
    return store.commit_shard(table, stats)


def _check(shard: Shard, records: Sequence[ImageResult]) -> None:
    where = shard.file.uri if shard.file else f"the plan of shard {shard.ordinal}"
    if shard.num_images is not None and len(records) != shard.num_images:
        raise InputError(
            f"{where} gave {len(records)} images for shard {shard.ordinal}, {shard.num_images} were planned; put a "
            "whole copy in its place"
        )
    keys = [image.key for image in records]
    if len(set(keys)) < len(keys):
        twice = next(key for number, key in enumerate(keys) if key in keys[:number])
        raise InputError(f"{where} names the key {twice!r} twice; keys must be unique: choose another --key-column")


class _Clock:
    def __init__(self, timings: dict[str, float]) -> None:
        self._timings = timings
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._timings[stage] += now - self._last
        self._last = now

    def skip(self) -> None:
        self._last = time.perf_counter()
