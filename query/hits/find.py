"""From the vectors of queries to hits: candidates from the index, relevance, and what is left out.

Shapes: Q queries, E embedding width, C candidates of a query, H hits of all queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indexer.earlier import EarlierSearcher
from indexer.searcher import IndexSearcher
from pipeline.errors import StoreError
from query.hits.relevance import Background
from query.hits.unique import near_duplicates
from query.queries.options import Options

MOST_CANDIDATES = 4_096
"""Of a query, to find enough hits that are no near-duplicates."""
_GROWTH = 4


@dataclass(frozen=True, slots=True)
class Found:
    """The hits of many queries as arrays [H]: by query, best first."""

    queries: np.ndarray
    """Which query each hit answers, from 0."""
    ranks: np.ndarray
    """From 1."""
    ids: np.ndarray
    scores: np.ndarray
    relevances: np.ndarray
    """NaN where it cannot be told."""
    duplicates: np.ndarray
    """How many near-duplicates each hit stands for."""


def find(
    index: IndexSearcher | EarlierSearcher,
    background: Background | None,
    vectors_QE: np.ndarray,
    options: Options,
    allowed_N: np.ndarray | None = None,
    excluded: Sequence[np.ndarray] = (),
    spread: float | np.ndarray | None = None,
) -> Found:
    """The hits of some queries.

    Args:
        index: Where to search.
        background: What random images score; None if that cannot be told.
        vectors_QE: Unit vectors.
        options: How many hits, and which count. `where` is in `allowed_N`.
        allowed_N: Which rows may be found, by position.
        excluded: For each query, ids that are left out of its hits; empty if there are none at all.
        spread: See `Background.relevance`.

    Raises:
        StoreError: If near-duplicates are left out, and the index has an earlier format.
    """
    count = options.k + max(map(len, excluded), default=0)
    if options.duplicate_cosine is None:
        return _chosen(index, background, vectors_QE, options, allowed_N, excluded, spread, count)
    while True:
        count = min(_GROWTH * count, max(MOST_CANDIDATES, count))
        found = _chosen(index, background, vectors_QE, options, allowed_N, excluded, spread, count)
        num_hits = np.bincount(found.queries, minlength=len(vectors_QE))
        if count >= min(MOST_CANDIDATES, index.num_rows) or (num_hits >= options.k).all():
            return found


def _chosen(
    index: IndexSearcher | EarlierSearcher,
    background: Background | None,
    vectors_QE: np.ndarray,
    options: Options,
    allowed_N: np.ndarray | None,
    excluded: Sequence[np.ndarray],
    spread: float | np.ndarray | None,
    count: int,
) -> Found:
    """The hits among so many candidates of each query."""
    if allowed_N is None:
        scores_QC, ids_QC = index.search(vectors_QE, count)
    else:
        scores_QC, ids_QC = index.search(vectors_QE, count, allowed_N=allowed_N)
    is_hit_QC = ids_QC >= 0
    for is_hit, ids, left_out in zip(is_hit_QC, ids_QC, excluded, strict=False):  # none at all, or one for each query
        is_hit &= ~np.isin(ids, left_out)
    if background is None:
        relevances_QC = np.full(scores_QC.shape, np.nan, np.float32)
    else:
        relevances_QC = background.relevance(vectors_QE, scores_QC, spread)
    if options.min_relevance is not None:
        is_hit_QC &= ~(relevances_QC < options.min_relevance)  # what cannot be told stays
    duplicates_QC = np.zeros(ids_QC.shape, np.int64)
    if options.duplicate_cosine is not None:
        if not isinstance(index, IndexSearcher):
            raise StoreError("near-duplicates need an index of today's format; run `clipsieve index` first")
        repeated_QC = near_duplicates(ids_QC, is_hit_QC, options.duplicate_cosine, index.vectors)
        is_hit_QC &= repeated_QC < 0
        queries, places = np.nonzero(repeated_QC >= 0)
        np.add.at(duplicates_QC, (queries, repeated_QC[queries, places]), 1)
    ranks_QC = np.cumsum(is_hit_QC, axis=1)
    is_hit_QC &= ranks_QC <= options.k
    queries, places = np.nonzero(is_hit_QC)
    return Found(
        queries,
        ranks_QC[queries, places],
        ids_QC[queries, places],
        scores_QC[queries, places],
        relevances_QC[queries, places],
        duplicates_QC[queries, places],
    )
