"""`python -m indexer STORE`: build an index where neither torch nor the command line's packages are installed."""

import sys

from indexer.build import build_index
from indexer.proof.queries import TextQueries
from indexer.proof.query_file import text_queries_of
from indexer.settings import IndexSettings
from pipeline.errors import ClipsieveError, on_one_line
from pipeline.settings.load import load_settings
from pipeline.store.view import StoreView

EXAMPLES = "  python -m indexer store --queries vectors.parquet"


def main(argv: list[str]) -> int:
    """Build the index of a store with vectors as queries. Returns the exit code."""
    try:
        settings = load_settings(IndexSettings, "index", argv, EXAMPLES)
        report = build_index(settings, lambda view: _queries(settings, view))
        for line in [*report.notes, *report.manifest.describe()]:
            print(line)
        report.refuse_short(settings)
    except ClipsieveError as error:
        print(f"error: {on_one_line(error)}", file=sys.stderr)
        return error.exit_code
    return 0


def _queries(settings: IndexSettings, view: StoreView) -> TextQueries | str:
    if settings.queries is None:
        return "no --queries were given, and `python -m indexer` embeds no texts"
    return text_queries_of(settings.queries, view.record.encoder.embedding_dim, view.record.text_space)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
