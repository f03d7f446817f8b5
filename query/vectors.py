"""`clipsieve search --vectors`: the hits of every vector of a file, in batches, as Parquet."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.opening import open_index
from indexer.proof.query_file import iterate_query_vectors
from pipeline.durable.atomic import write_atomically
from pipeline.model.spec import DeviceChoice
from pipeline.store.view import StoreView

SCHEMA = pa.schema(
    [
        pa.field("query", pa.int64(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("id", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)

MOST_HITS = 1_000_000
"""That are held at once."""


@dataclass(frozen=True, slots=True)
class VectorsReport:
    """How many queries and hits there were, and how long the index took."""

    num_queries: int
    num_hits: int
    seconds: float


def search_vectors(
    root: Path,
    vectors: Path,
    out: Path,
    k: int,
    partial: bool = False,
    device: DeviceChoice = "auto",
    on_warning: Callable[[str], None] = lambda text: None,
) -> VectorsReport:
    """Search an index with each vector of a file.

    Args:
        root: An indexed store.
        vectors: A Parquet file with a column `embedding`. Vectors are brought to unit length.
        out: The Parquet file of hits, with `SCHEMA`. `query` is the number of the vector's row, from 0.
        k: Hits per vector; fewer if the index is smaller.
        partial: Accept an unfinished store, or an index older than its store.
        device: Where to search.
        on_warning: Called with what a user should know about the index.

    Raises:
        StoreError: If the store or its index cannot be used, or the hits cannot be written.
        InputError: If the file of vectors cannot be used. No file of hits is left then.
    """
    view = StoreView.open(root, partial)
    searcher = open_index(view, partial, device)
    if searcher.warning:
        on_warning(searcher.warning)
    counts = {"queries": 0, "hits": 0, "seconds": 0.0}

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
            for queries_QE in _pieces(iterate_query_vectors(vectors, view.record.encoder.embedding_dim), k):
                started = time.perf_counter()
                scores_QK, ids_QK = searcher.search(queries_QE, k)
                counts["seconds"] += time.perf_counter() - started
                rows, ranks = np.nonzero(ids_QK >= 0)
                ids = ids_QK[rows, ranks]
                keys = searcher.metadata(ids, ["key"])["key"]
                columns = [rows + counts["queries"], (ranks + 1).astype(np.int32), ids, keys, scores_QK[rows, ranks]]
                writer.write_table(pa.table(columns, schema=SCHEMA))
                counts["queries"] += len(queries_QE)
                counts["hits"] += len(ids)

    write_atomically(out, write)
    return VectorsReport(counts["queries"], counts["hits"], counts["seconds"])


def _pieces(batches: Iterator[np.ndarray], k: int) -> Iterator[np.ndarray]:
    """Batches of queries, cut so that the hits of a piece fit in memory however many each query has."""
    size = max(1, MOST_HITS // k)
    for queries_QE in batches:
        for start in range(0, len(queries_QE), size):
            yield queries_QE[start : start + size]
