"""Make text queries in a process of their own: torch and the text tower give their memory back when it ends."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from indexer.proof.queries import TextQueries
from pipeline.errors import ClipsieveError


def text_queries_apart(root: Path, path: Path | None, partial: bool) -> tuple[TextQueries | str, list[str]]:
    """As `query.proof.text_queries.text_queries`, with the warnings.

    Args:
        root: The store.
        path: Queries of the user, if there are any.
        partial: Accept an unfinished store.

    Raises:
        ClipsieveError: As `text_queries`, and if the process dies.
    """
    context = multiprocessing.get_context("spawn")  # a copy of this process would have threads that are not running
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_text_queries, root, path, partial).result()
    except BrokenProcessPool as error:
        raise ClipsieveError(
            "the process that embeds the text queries died, probably for lack of memory; give --queries with vectors"
        ) from error


def _text_queries(root: Path, path: Path | None, partial: bool) -> tuple[TextQueries | str, list[str]]:
    from pipeline.machine import prepare_for_torch

    prepare_for_torch()

    from pipeline.store.view import StoreView
    from query.proof.text_queries import text_queries

    warnings: list[str] = []
    found = text_queries(StoreView.open(root, partial), path, on_warning=warnings.append)
    return found, warnings
