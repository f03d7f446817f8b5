"""One shard from plan to commit: the stage that a worker runs. A plain function that runs and is tested without Ray."""

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.model.encode import Encoder
from pipeline.pixels.batch import DecodedBatch
from pipeline.planning.batches import batches_of
from pipeline.source.entry import ImageEntry, ImageResult
from pipeline.source.left_out import ReadNotes
from pipeline.store.commit_markers import commit_shard
from pipeline.store.layout import Store
from pipeline.store.parts import part_table
from pipeline.store.records import CommitMarker, Shard, StoreRecord, Timings
from pipeline.workers.canary import Canary


def embed_shard(
    shard: Shard,
    record: StoreRecord,
    store: Store,
    encoder: Encoder,
    decode: Callable[[Iterable[Sequence[ImageEntry]]], Iterator[DecodedBatch]],
    on_batch: Callable[[int, int], None] = lambda num_images, num_failed: None,
    canary: Canary | None = None,
) -> CommitMarker:
    """Read, decode, encode and commit one shard.

    Batches follow the plan, never the order of arrival, and a failed image keeps its slot. The bytes of the part do
    not depend on which worker computes it, or how many times.

    Args:
        shard: What to embed.
        record: The store's record.
        store: Where to commit.
        encoder: Turns pixels into embeddings.
        decode: Maps batches of entries to decoded batches, in order; may work ahead.
        on_batch: Called after each batch with its number of images and of failed images.
        canary: Compares some of the images with their unpruned embeddings.

    Raises:
        InputError: If the source file of the shard is damaged, or contains a key twice.
        StoreError: If the part cannot be written.
    """
    account = _Account(encoder)
    results: list[ImageResult] = []
    embeddings = [np.empty((0, record.encoder.embedding_dim), np.float32)]
    if canary:
        canary.summary()  # discard what an earlier, unfinished shard left
    notes = ReadNotes()
    for batch in decode(batches_of(shard, record, store, notes)):
        account.lap("decode_wait_s")
        account.timings.decode_cpu_s += batch.cpu_s
        embeddings.append(encoder.encode(batch.pixels))
        account.lap("encode_s")
        if canary:
            with account.left_out():
                canary.watch(batch, embeddings[-1])
        results.extend(batch.results)
        on_batch(len(batch.results), batch.num_failed)
    _check(shard, results)
    table = part_table(
        results,
        np.concatenate(embeddings),
        first_id=shard.first_id,
        tokens_kept=encoder.tokens_kept,
        spec=record.encoder,
        shard_id=shard.shard_id,
        columns=record.columns,
    )
    account.lap("write_s")
    fields = _identity(shard, record) | _counts(results) | account.fields()
    found = {"canary": canary.summary() if canary else None} | _found(notes)
    return commit_shard(store, table, fields | found)


def _identity(shard: Shard, record: StoreRecord) -> dict[str, Any]:
    return {
        "ordinal": shard.ordinal,
        "shard_id": shard.shard_id,
        "fingerprint": record.fingerprint,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
    }


def _counts(results: Sequence[ImageResult]) -> dict[str, Any]:
    failed = Counter(str(result.status) for result in results if not result.is_ok)
    num_ok = len(results) - failed.total()
    return {"num_images": len(results), "num_ok": num_ok, "failed": dict(sorted(failed.items()))}


def _found(notes: ReadNotes) -> dict[str, Any]:
    seen = notes.columns_seen
    return {"left_out": notes.left_out, "columns_seen": None if seen is None else sorted(seen)}


def _check(shard: Shard, results: Sequence[ImageResult]) -> None:
    where = shard.file.uri if shard.file else f"the plan of shard {shard.ordinal}"
    if shard.num_images is not None and len(results) != shard.num_images:
        raise InputError(
            f"{where} has {len(results)} images for shard {shard.ordinal}, but {shard.num_images} were planned; "
            "replace it with a complete copy"
        )
    repeated = next((key for key, count in Counter(result.key for result in results).items() if count > 1), None)
    if repeated is not None:
        raise InputError(f"{where} contains the key {repeated!r} twice; choose a --key-column with unique keys")


class _Account:
    """Measures the time and memory spent on one shard."""

    def __init__(self, encoder: Encoder) -> None:
        self.timings = Timings()
        self._encoder = encoder
        self._transfer_s, self._num_halvings = encoder.transfer_s, encoder.num_halvings
        self._cpu_s, self._last = time.process_time(), time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to the given stage."""
        now = time.perf_counter()
        setattr(self.timings, stage, getattr(self.timings, stage) + now - self._last)
        self._last = now

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Exclude the time of the block from all timings."""
        started = time.process_time()
        yield
        self._cpu_s += time.process_time() - started
        self._last = time.perf_counter()

    def fields(self) -> dict[str, Any]:
        """The fields for the commit marker."""
        self.timings.transfer_s = self._encoder.transfer_s - self._transfer_s
        self.timings.encode_cpu_s = time.process_time() - self._cpu_s
        return {
            "timings_s": asdict(self.timings),
            "micro_batch": self._encoder.micro_batch,
            "num_halvings": self._encoder.num_halvings - self._num_halvings,
        }
