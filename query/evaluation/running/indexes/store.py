"""The vectors of a gallery as a store, so that they are indexed exactly as any store is.

Shapes: N images, E embedding width.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pipeline import __version__
from pipeline.model.spec import ClaimedSpec, ModelSource, spec_metadata
from pipeline.source.entry import ImageEntry, ImageResult, Source, Status
from pipeline.store.commit_markers import commit_shard
from pipeline.store.layout import Store
from pipeline.store.parts import part_table
from pipeline.store.records import Shard, StoreRecord
from pipeline.store.tombstones import create_tombstones
from query.evaluation.record import ConditionRecord

SHARD_ROWS = 10_000


def write_store(root: Path, vectors_NE: np.ndarray, condition: ConditionRecord) -> None:
    """Write a store whose row n is image n.

    Args:
        root: A folder that is empty or not there.
        vectors_NE: Unit vectors, float32. Stored as `embed` stores them: in float16, unless the tower ran in fp32.
        condition: Whose vectors they are.

    Raises:
        StoreError: If the folder cannot be written.
    """
    spec = ClaimedSpec(
        source=ModelSource(model=condition.model, pretrained=condition.pretrained),
        embedding_dim=vectors_NE.shape[1],
        precision="fp32" if condition.precision == "fp32" else "fp16",
    )
    store = Store(root)
    store.create_folders()
    create_tombstones(store)
    record = store.begin(
        StoreRecord(
            clipsieve_version=__version__,
            **spec_metadata(spec),
            shard_capacity=SHARD_ROWS,
            batch_size=0,
            max_pixels=0,
            threads_per_worker=0,
            environment={},
        )
    )
    source = Source(location=str(root), format="folder")
    record = store.add_plan(record, source, _shards(condition.key, len(vectors_NE)))
    for shard in record.shards:
        rows = slice(shard.first_id, shard.first_id + shard.num_images)
        table = part_table(
            [ImageResult(key=entry.key, uri=entry.uri, status=Status.OK) for entry in _entries(rows)],
            vectors_NE[rows],
            first_id=shard.first_id,
            tokens_kept=None,
            spec=spec,
            shard_id=shard.shard_id,
        )
        fields = {"ordinal": shard.ordinal, "shard_id": shard.shard_id, "fingerprint": record.fingerprint}
        fields |= {"num_images": shard.num_images, "num_ok": shard.num_images, "failed": {}, "timings_s": {}}
        commit_shard(store, table, fields | {"finished_at": datetime.now(UTC).isoformat(timespec="seconds")})


def _shards(name: str, num_rows: int) -> Iterator[tuple[Shard, list[ImageEntry]]]:
    for ordinal, first in enumerate(range(0, num_rows, SHARD_ROWS)):
        rows = slice(first, min(num_rows, first + SHARD_ROWS))
        num_images = rows.stop - rows.start
        shard = Shard(
            ordinal=ordinal, shard_id=f"{name}-{ordinal}", first_id=first, room=num_images, num_images=num_images
        )
        yield shard, _entries(rows)


def _entries(rows: slice) -> list[ImageEntry]:
    return [ImageEntry(f"{row:09d}", f"image:{row}", 0, 0) for row in range(rows.start, rows.stop)]
