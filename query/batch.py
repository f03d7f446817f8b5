"""`clipsieve search --queries` and `--vectors`: a file of queries to a file of hits, in batches.

Each core answers one piece of the queries after another. A search of one piece on all cores would leave them idle while
its hits are looked up, and slow down where other threads still spin.

Shapes: Q queries of a piece, E embedding width.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from indexer.proof.query_file import has_vectors, iterate_query_vectors
from indexer.searcher import search_on_this_thread_alone
from pipeline.durable.atomic import write_atomically
from pipeline.errors import InputError
from pipeline.machine import num_cores
from query.hits.find import Found, find
from query.hits.writers import writer_to
from query.opened import Opened
from query.queries.options import Options
from query.queries.terms import parse_terms
from query.queries.texts import iterate_query_texts
from query.queries.vectors import QueryEncoder
from query.searcher import Searcher

SCHEMA = pa.schema(
    [
        pa.field("query", pa.int64(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("id", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("relevance", pa.float32()),
    ]
)
TEXT_SCHEMA = SCHEMA.insert(1, pa.field("text", pa.string(), nullable=False))

MOST_HITS = 10_000
"""Of a piece."""
MOST_TEXTS = 1_024
"""Of a piece."""


@dataclass(frozen=True, slots=True)
class BatchReport:
    """How many queries and hits there were, and how long it took."""

    num_queries: int
    num_hits: int
    seconds: float
    """From opening the file of queries to the finished file of hits."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some queries of the file, from the number `first` on."""

    first: int
    vectors_QE: np.ndarray
    texts: list[str] | None = None


def search_file(
    searcher: Searcher,
    queries: Path,
    out: Path,
    options: Options,
    templates: tuple[str, ...] = (),
    on_progress: Callable[[int], None] = lambda num_queries: None,
) -> BatchReport:
    """Answer every query of a file.

    Args:
        searcher: An open store.
        queries: Texts (.txt, .tsv, .jsonl or .parquet; see `query.queries.texts`), or a Parquet file with vectors in
            a column `embedding`, which are brought to unit length.
        out: The file of hits (.parquet, .csv or .jsonl), with `SCHEMA`, and for texts `TEXT_SCHEMA`. `query` is the
            number of the row, from 0. The hits are in the order of the queries, and then by rank.
        options: Which answers count.
        templates: Sentences with {} for each text.
        on_progress: Called with the number of queries that are done.

    Raises:
        InputError: If the file of queries cannot be used. No file of hits is left then.
        StoreError: If the hits cannot be written.
    """
    started, num_queries, num_hits, warnings = time.perf_counter(), 0, 0, list[str]()
    opened, encoder = searcher.current
    allowed_N = opened.allowed(options.where)
    are_texts = not has_vectors(queries)
    # one search at a time on a GPU, whose memory the searches share
    num_threads = num_cores() if opened.index.device == "cpu" else 1

    def answer(piece: _Piece) -> tuple[int, pa.Table]:
        spread = None if piece.texts is None else opened.text_spread(encoder)
        found = find(opened.index, opened.background, piece.vectors_QE, options, allowed_N, spread=spread)
        return len(piece.vectors_QE), _table(opened, piece, found)

    def write(temporary: Path) -> None:
        nonlocal num_queries, num_hits
        size = max(1, MOST_HITS // options.k)  # so that the hits of a piece fit in memory
        if are_texts:
            pieces = _pieces_of_texts(encoder, queries, min(size, MOST_TEXTS), templates, warnings)
        else:
            pieces = _pieces_of_vectors(encoder, queries, size)
        with writer_to(temporary, out.suffix.lower(), TEXT_SCHEMA if are_texts else SCHEMA) as writer:
            for count, table in _in_order(answer, pieces, num_threads):
                writer.write_table(table)
                num_queries, num_hits = num_queries + count, num_hits + table.num_rows
                on_progress(num_queries)

    write_atomically(out, write)
    seconds = time.perf_counter() - started
    return BatchReport(num_queries, num_hits, seconds, tuple(dict.fromkeys([*opened.warnings, *warnings])))


def _in_order(
    answer: Callable[[_Piece], tuple[int, pa.Table]], pieces: Iterator[_Piece], num_threads: int
) -> Iterator[tuple[int, pa.Table]]:
    """Answer pieces on threads of their own. Few are held at once, however long the file is."""
    answers: deque[Future[tuple[int, pa.Table]]] = deque()
    with ThreadPoolExecutor(num_threads, initializer=search_on_this_thread_alone) as threads:
        for piece in pieces:
            answers.append(threads.submit(answer, piece))
            if len(answers) > num_threads + 1:
                yield answers.popleft().result()
        while answers:
            yield answers.popleft().result()


def _pieces_of_vectors(encoder: QueryEncoder, queries: Path, size: int) -> Iterator[_Piece]:
    first = 0
    for vectors_QE in iterate_query_vectors(queries, encoder.spec.embedding_dim):
        for start in range(0, len(vectors_QE), size):
            yield _Piece(first + start, vectors_QE[start : start + size])
        first += len(vectors_QE)


def _pieces_of_texts(
    encoder: QueryEncoder, queries: Path, size: int, templates: tuple[str, ...], warnings: list[str]
) -> Iterator[_Piece]:
    first, texts = 0, iterate_query_texts(queries)
    while piece := list(islice(texts, size)):
        for number, text in enumerate(piece, first + 1):
            _refuse_bad_sum(queries, number, text)
        vectors_QE = encoder.texts(piece, templates)
        warnings += encoder.warnings(piece)
        yield _Piece(first, vectors_QE, piece)
        first += len(piece)


def _refuse_bad_sum(path: Path, number: int, text: str) -> None:
    try:
        parse_terms(text)
    except InputError as error:
        raise InputError(f"queries {path}, text {number}: {error}") from error


def _table(opened: Opened, piece: _Piece, found: Found) -> pa.Table:
    keys = opened.index.metadata(found.ids, ["key"])["key"]
    columns = [
        pa.array(found.queries + piece.first),
        pa.array(found.ranks.astype(np.int32)),
        pa.array(found.ids),
        keys,
        pa.array(found.scores),
        pa.array(found.relevances, from_pandas=True),
    ]
    if piece.texts is None:
        return pa.table(columns, schema=SCHEMA)
    texts = pa.array(piece.texts).take(pa.array(found.queries))
    return pa.table([columns[0], texts, *columns[1:]], schema=TEXT_SCHEMA)
