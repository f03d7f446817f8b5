"""Hits without a store: made from single ones."""

import numpy as np
import pyarrow as pa

from query.hits.find import Found
from query.hits.hit import Timings
from query.hits.hits import Hits
from query.hits.table import table_of
from query.queries.options import Options
from query.queries.request import Request


class Store:
    """Answers nothing, and knows its keys."""

    def __init__(self, *keys):
        self.keys = keys

    def ask(self, request):
        raise AssertionError(f"{request} was asked")

    def has_keys(self, keys):
        return [key in self.keys for key in keys]


def hits_of(hits, query="a query", store=None, warnings=(), columns=None, **options):
    """`Hits` of some `Hit`, with the columns of their store."""
    options.setdefault("k", max(1, len(hits)))
    found = Found(
        queries=np.zeros(len(hits), np.int64),
        ranks=np.array([hit.rank for hit in hits], np.int64),
        ids=np.array([hit.id for hit in hits], np.int64),
        scores=np.array([hit.score for hit in hits], np.float32),
        relevances=np.array([np.nan if hit.relevance is None else hit.relevance for hit in hits], np.float32),
        duplicates=np.array([hit.duplicates for hit in hits], np.int64),
    )
    texts = {name: pa.array([getattr(hit, name) for hit in hits], pa.string()) for name in ("key", "uri", "caption")}
    table = table_of(found, pa.table(texts | (columns or {})))
    timings = Timings(embed=2.0, filter=0.5, index=1.0, hits=0.25)
    request = Request(text=query, options=Options(**options))
    return Hits(request, table, timings, store or Store(), tuple(warnings))
