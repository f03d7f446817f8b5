"""From Parquet shards to a FAISS index. The public name is `build_index`; the story is in `build.build_index`.

Needs neither torch nor Ray: everything about the encoder is read from the store. Importing this package imports
nothing heavy.
"""

from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.build import IndexReport
    from indexer.proof.queries import TextQueries
    from pipeline.store.view import StoreView

__all__ = ["build_index"]


def build_index(
    store: str | PathLike[str],
    *,
    queries: str | PathLike[str] | None = None,
    text_queries: "Callable[[StoreView], TextQueries | str] | None" = None,
    on_step: Callable[[str, int, int], None] = lambda step, num_done, num_total: None,
    **settings: Any,
) -> "IndexReport":
    """Build the index of a store, as `clipsieve index` does, or bring it up to date.

    A store of up to about 100,000 images gets an exact index, which needs no queries. A larger one is tuned and proven
    with text queries; without any, it is built as well, but nothing is known of its recall, and `search` warns.

    Args:
        store: The folder of the store.
        queries: A Parquet file of text vectors in a column `embedding`, to tune and prove the index with.
        text_queries: Makes the text queries instead. `from query import text_queries` embeds built-in texts with the
            text tower of the store.
        on_step: Called with the progress: what is being done, how much of it is done, and how much there is.
        **settings: Those of `indexer.settings.IndexSettings`, named as the flags with _ for -. For example
            `recipe="IVF4096,SQ8"`, `min_recall=0.98`, `max_index_memory="600M"`.

    Returns:
        What was built. `report.manifest.proof` has the recall. `report.refuse_short(settings)` is for the command line.

    Raises:
        ConfigError: If a setting is unknown or out of range, or cannot be met.
        InputError: If the queries cannot be used.
        StoreError: If the store is unfinished, locked or damaged, or the index cannot be written.
    """
    from indexer import build
    from indexer.proof.query_file import text_queries_of
    from indexer.settings import IndexSettings
    from pipeline.errors import ConfigError
    from pipeline.settings.load import settings_of

    if queries is not None and text_queries is not None:
        raise ConfigError("build_index: give queries, a file of vectors, or text_queries, which makes them")
    given = {**settings, "store": store, "queries": queries}
    made = settings_of(IndexSettings, "build_index", given, ("dry_run", "show", "check", "plot"))

    def of_file(view: "StoreView") -> "TextQueries | str":
        if made.queries is None:
            return "no text queries were given"
        return text_queries_of(made.queries, view.record.encoder.embedding_dim, view.record.text_space)

    return build.build_index(made, text_queries or of_file, on_step)
