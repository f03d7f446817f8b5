"""`clipsieve search`: from a text to ranked images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from indexer.opening import open_index
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
    searcher = open_index(view, partial, device)
    encoder = text_encoder(view.record.encoder, device)
    texts = encoder.encode_texts(queries)
    for warning in encoder.tokenize.count_cut(queries, "query", "queries")[1]:
        on_warning(warning)
    if warning := searcher.warning:
        on_warning(warning)
    scores_QK, ids_QK = searcher.search(texts, k)
    rows = iter(searcher.metadata(ids_QK[ids_QK >= 0], ["key", "uri", "caption"]).to_pylist())
    return [
        [
            Hit(rank=rank, id=int(i), score=float(score), **next(rows))
            for rank, (i, score) in enumerate(zip(ids, scores, strict=True), 1)
            if i >= 0
        ]
        for ids, scores in zip(ids_QK, scores_QK, strict=True)
    ]
