"""`clipsieve search`: from a text to ranked images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.manifest import index_path, read_manifest
from indexer.searcher import FlatSearcher
from pipeline.errors import InputError
from pipeline.model.spec import DeviceChoice
from pipeline.store.view import StoreView
from query.text import text_encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One answer. `score` is the inner product of unit vectors (larger is better); `rank` starts at 1."""

    rank: int
    id: int
    key: str
    uri: str
    score: float
    caption: str | None


def search(
    root: Path,
    queries: list[str],
    k: int,
    partial: bool = False,
    device: DeviceChoice = "auto",
    on_warning: Callable[[str], None] = lambda text: None,
) -> list[list[Hit]]:
    """Find the `k` images of a store that best match each query.

    Args:
        root: An indexed store.
        queries: Texts.
        k: Hits per query; fewer if the index is smaller.
        partial: Accept an unfinished store, or an index older than its store.
        device: Where to embed the texts and search; `auto` embeds on the CPU.
        on_warning: Called with what a user should know about the queries.

    Raises:
        ConfigError: If the device is not available.
        StoreError: If the store or its index cannot be used.
        InputError: If a query is empty.
    """
    if not all(query.strip() for query in queries):
        raise InputError("the query is empty; describe what to look for")
    view = StoreView.open(root, partial)
    read_manifest(view, partial)
    searcher = FlatSearcher(index_path(view.store), device)
    encoder = text_encoder(view.record.encoder, device)
    texts = encoder.encode_texts(queries)
    for warning in encoder.tokenize.count_cut(queries, "query", "queries")[1]:
        on_warning(warning)
    found = _search_live(searcher, texts, k, view.deleted)
    rows = view.rows(np.concatenate(found.ids), ["key", "uri", "caption"])
    return [
        [
            Hit(rank=rank, id=int(i), score=float(score), **rows[int(i)])
            for rank, (i, score) in enumerate(zip(ids, scores, strict=True), 1)
        ]
        for ids, scores in zip(found.ids, found.scores, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Found:
    ids: list[np.ndarray]
    scores: list[np.ndarray]


def _search_live(searcher: FlatSearcher, queries_QE: np.ndarray, k: int, deleted: np.ndarray) -> _Found:
    """The `k` best hits of each query that are not deleted; the index may be older than the tombstones."""
    more = min(k, len(deleted))
    while True:
        scores_QK, ids_QK = searcher.search(queries_QE, k + more)
        is_live = [~np.isin(ids, deleted) for ids in ids_QK]
        if more >= len(deleted) or min(live.sum() for live in is_live) >= k:
            return _Found(
                [ids[live][:k] for ids, live in zip(ids_QK, is_live, strict=True)],
                [scores[live][:k] for scores, live in zip(scores_QK, is_live, strict=True)],
            )
        more = min(4 * more, len(deleted))
