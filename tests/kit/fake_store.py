"""Fake a store without a model: its record, and shards committed with meaningless vectors."""

from collections import Counter

import numpy as np

from pipeline.model.spec import spec_metadata
from pipeline.store.commit_markers import commit_shard
from pipeline.store.parts import part_table
from pipeline.store.records import StoreRecord

TOKENS_KEPT = 11


def fake_record(spec, **changes):
    fields = {
        "clipsieve_version": "0", **spec_metadata(spec), "shard_capacity": 3, "batch_size": 2, "max_pixels": 1000,
        "threads_per_worker": 1, "environment": {},
    }  # fmt: skip
    return StoreRecord(**(fields | changes))


def commit_fake(store, record, shard, results, vectors=None):
    """Commit a shard with these results. `vectors` are unit vectors [n, E], all equal by default."""
    dim = record.encoder.embedding_dim
    vectors = np.full((len(results), dim), dim**-0.5, np.float32) if vectors is None else vectors
    table = part_table(
        results, vectors, first_id=shard.first_id, tokens_kept=TOKENS_KEPT, spec=record.encoder,
        shard_id=shard.shard_id, columns=record.columns,
    )  # fmt: skip
    failed = Counter(str(result.status) for result in results if not result.is_ok)
    fields = {
        "ordinal": shard.ordinal, "shard_id": shard.shard_id, "fingerprint": record.fingerprint,
        "num_images": len(results), "num_ok": len(results) - failed.total(), "failed": dict(failed),
        "timings_s": {"encode_s": 0.5}, "finished_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return commit_shard(store, table, fields)
