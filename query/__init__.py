"""From an index to answers: search, evaluation, inspection, the demo and the command line.

Public names are `Searcher`, `Hits`, `Hit`, `compare`, and `text_queries` for `indexer.build_index`. Start reading at
`searcher.Searcher.ask_all` for a search, and at `evaluate.evaluate` for a measurement.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from query.hits.compare import compare
    from query.hits.hits import Hit, Hits
    from query.proof.text_queries import text_queries
    from query.searcher import Searcher

__all__ = ["Hit", "Hits", "Searcher", "compare", "text_queries"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: FAISS takes a moment, which `--help` need not wait for."""
    if name == "Searcher":
        from query.searcher import Searcher

        return Searcher
    if name in ("Hit", "Hits"):
        from query.hits import hits

        return getattr(hits, name)
    if name == "compare":
        from query.hits.compare import compare

        return compare
    if name == "text_queries":
        from query.proof.text_queries import text_queries

        return text_queries
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
