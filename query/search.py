"""`clipsieve search`: the whole story from a text to ranked images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.flat import FlatSearcher
from indexer.manifest import index_path, read_manifest
from pipeline.errors import InputError
from pipeline.schema import read_part
from pipeline.store import RunRecord, Store
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


def search(root: Path, queries: list[str], k: int, partial: bool = False) -> list[list[Hit]]:
    """Find the `k` images of a store that each query describes best.

    Args:
        root: An indexed store.
        queries: Texts.
        k: Hits per query; fewer where the index is smaller.
        partial: Accept an unfinished store, or an index older than its store.

    Raises:
        StoreError: If store or index cannot be used.
        InputError: If a query is empty.
    """
    if not all(query.strip() for query in queries):
        raise InputError("the query is empty; say in words what to look for")
    store = Store(root)
    record = store.read_run()
    committed = store.require_finished(record, partial)
    read_manifest(store, record, committed, partial)
    searcher = FlatSearcher(index_path(store))
    texts = text_encoder(record.encoder).encode_texts(queries)
    scores_QK, ids_QK = searcher.search(texts, k)
    rows = _rows_by_id(store, record, np.unique(ids_QK))
    return [
        [
            Hit(rank, int(i), score=float(score), **rows[int(i)])
            for rank, (i, score) in enumerate(zip(ids, scores, strict=True), 1)
        ]
        for ids, scores in zip(ids_QK, scores_QK, strict=True)
    ]


def _rows_by_id(store: Store, record: RunRecord, ids: np.ndarray) -> dict[int, dict[str, Any]]:
    rows = {}
    for ordinal in np.unique(ids // record.shard_capacity):
        table = read_part(store.part_path(int(ordinal)), ["id", "key", "uri", "caption"])
        for row in table.filter(pc.is_in(table["id"], pa.array(ids))).to_pylist():
            rows[row.pop("id")] = row
    return rows
