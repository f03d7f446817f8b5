"""From rows of embeddings to committed shards."""

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import groupby

from pipeline.imported.files import Embeddings
from pipeline.imported.matrix import unit_embeddings
from pipeline.imported.rows import RowReader, Rows
from pipeline.source.entry import Status
from pipeline.store.commit_markers import commit_shard
from pipeline.store.layout import Store
from pipeline.store.parts import part_table
from pipeline.store.records import CommitMarker, Shard, StoreRecord, Timings
from pipeline.store.view import StoreView


def import_shards(
    view: StoreView, found: Embeddings, on_commit: Callable[[CommitMarker], None] = lambda marker: None
) -> dict[int, CommitMarker]:
    """Commit the shards of a store that are missing. Memory holds one shard at a time.

    Args:
        view: The store, planned.
        found: Its source.
        on_commit: Called after each shard.

    Returns:
        The new commit markers, by ordinal.

    Raises:
        InputError: If a file is damaged, or an embedding has another number of values.
        StoreError: If a part cannot be written.
    """
    markers = {}
    for shard, rows in _read(view.missing, found):
        markers[shard.ordinal] = marker = _commit(shard, rows, view.record, view.store)
        on_commit(marker)
    return markers


def _read(shards: list[Shard], found: Embeddings) -> Iterator[tuple[Shard, Rows]]:
    files = {file.key: file for file in found.files}
    # shards that follow one another are read in one pass: a file can be a single row group
    for (key, _), group in groupby(enumerate(shards), lambda pair: (pair[1].file.key, pair[1].ordinal - pair[0])):
        run = [shard for _, shard in group]
        with RowReader(files[key], files[key].columns, run[0].start) as reader:
            yield from ((shard, reader.read(shard.num_images, found.dim)) for shard in run)


def _commit(shard: Shard, rows: Rows, record: StoreRecord, store: Store) -> CommitMarker:
    started = time.perf_counter()
    embeddings = unit_embeddings(rows.embeddings, record.encoder.precision != "fp32")
    results = rows.results
    for row, reason in embeddings.faults.items():
        results[row] = replace(results[row], status=Status.BAD_EMBEDDING, error=reason)
    table = part_table(
        results,
        embeddings.values_NE,
        first_id=shard.first_id,
        tokens_kept=None,
        spec=record.encoder,
        shard_id=shard.shard_id,
        columns=record.columns,
    )
    fields = {
        "ordinal": shard.ordinal,
        "shard_id": shard.shard_id,
        "fingerprint": record.fingerprint,
        "num_images": len(results),
        "num_ok": len(results) - len(embeddings.faults),
        "failed": {str(Status.BAD_EMBEDDING): len(embeddings.faults)} if embeddings.faults else {},
        "num_normalised": embeddings.num_normalised,
        "timings_s": asdict(Timings(write_s=time.perf_counter() - started)),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
    }
    return commit_shard(store, table, fields)
