"""`clipsieve search`: the whole story from a text to ranked images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.manifest import index_path, read_manifest
from indexer.searcher import FlatSearcher
from pipeline.errors import InputError
from pipeline.model.spec import DeviceChoice
from pipeline.store.layout import Store
from pipeline.store.parts import read_part
from pipeline.store.records import CommitMarker, StoreRecord
from pipeline.store.tombstones import read_tombstones
from query.text import text_encoder


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer; `score` is the inner product of unit vectors, larger is better, `rank` starts at 1."""

    rank: int
    id: int
    key: str
    uri: str
    score: float
    caption: str | None


def search(
    root: Path, queries: list[str], k: int, partial: bool = False, device: DeviceChoice = "auto"
) -> list[list[Hit]]:
    """Find the `k` images of a store that each query describes best.

    Args:
        root: An indexed store.
        queries: Texts.
        k: Hits per query; fewer where the index is smaller.
        partial: Accept an unfinished store, or an index older than its store.
        device: Where to embed the texts and to search; `auto` embeds on the CPU.

    Raises:
        ConfigError: If the device is not there.
        StoreError: If store or index cannot be used.
        InputError: If a query is empty.
    """
    if not all(query.strip() for query in queries):
        raise InputError("the query is empty; say in words what to look for")
    store = Store(root)
    record = store.read_run()
    committed = store.require_finished(record, partial)
    read_manifest(store, record, committed, partial)
    searcher = FlatSearcher(index_path(store), device)
    texts = text_encoder(record.encoder, device).encode_texts(queries)
    found = _search_living(searcher, texts, k, read_tombstones(store))
    rows = _rows_by_id(store, record, committed, np.unique(np.concatenate(found.ids)))
    return [
        [
            Hit(rank, int(i), score=float(score), **rows[int(i)])
            for rank, (i, score) in enumerate(zip(ids, scores, strict=True), 1)
        ]
        for ids, scores in zip(found.ids, found.scores, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Found:
    ids: list[np.ndarray]
    scores: list[np.ndarray]


def _search_living(searcher: FlatSearcher, queries_QE: np.ndarray, k: int, gone: np.ndarray) -> _Found:
    """The `k` best of each query that are not deleted: the index may be older than the tombstones."""
    more = min(k, len(gone))
    while True:
        scores_QK, ids_QK = searcher.search(queries_QE, k + more)
        alive = [~np.isin(ids, gone) for ids in ids_QK]
        if more >= len(gone) or min(living.sum() for living in alive) >= k:
            return _Found(
                [ids[living][:k] for ids, living in zip(ids_QK, alive, strict=True)],
                [scores[living][:k] for scores, living in zip(scores_QK, alive, strict=True)],
            )
        more = min(4 * more, len(gone))


def _rows_by_id(
    store: Store, record: StoreRecord, committed: dict[int, CommitMarker], ids: np.ndarray
) -> dict[int, dict[str, Any]]:
    rows = {}
    shards = record.shards
    for place in np.unique(np.searchsorted([shard.first_id for shard in shards], ids, side="right") - 1):
        stats = committed[shards[place].ordinal]
        table = read_part(store.part_of(stats), ["id", "key", "uri", "caption"])
        for row in table.filter(pc.is_in(table["id"], pa.array(ids))).to_pylist():
            rows[row.pop("id")] = row
    return rows
