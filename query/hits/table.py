"""Hits as Arrow tables."""

import itertools

import numpy as np
import pyarrow as pa

from query.hits.find import Found
from query.hits.hits import OWN

_TAKEN = (*OWN, "query")  # files of hits have the number of the query
_PREFIX = "store_"


def table_of(found: Found, metadata: pa.Table) -> pa.Table:
    """One row per hit: what was found, then the other columns of the store.

    Args:
        found: The hits [H].
        metadata: Their rows [H], with all columns of the index.
    """
    own = {
        "rank": pa.array(found.ranks.astype(np.int32)),
        "id": pa.array(found.ids),
        "score": pa.array(found.scores),
        "relevance": pa.array(found.relevances, from_pandas=True),  # NaN is null
        "duplicates": pa.array(found.duplicates.astype(np.int32)),
    }
    shared = {name: metadata[name] for name in ("key", "uri", "caption")}
    columns = {name: own[name] if name in own else shared[name] for name in OWN}
    for name in metadata.column_names:
        if name not in shared:
            columns[_free_name(name, metadata.column_names)] = metadata[name]
    return pa.table(columns)


def _free_name(name: str, others: list[str]) -> str:
    """The name of a column of the store in a table of hits: its own, or with a prefix if that means something else."""
    if name not in _TAKEN:
        return name
    while name in others or name in _TAKEN:
        name = f"{_PREFIX}{name}"
    return name


def tables_of(found: Found, metadata: pa.Table, num_queries: int) -> list[pa.Table]:
    """The table of each query."""
    table = table_of(found, metadata)
    ends = np.searchsorted(found.queries, np.arange(num_queries + 1))
    return [table.slice(start, end - start) for start, end in itertools.pairwise(ends)]
