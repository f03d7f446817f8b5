"""`python -m indexer STORE`: build an index where neither torch nor the command line's packages are installed."""

import sys

from indexer.build import build_index
from indexer.proof.queries import TextQueries
from indexer.proof.query_file import text_queries_of
from indexer.settings import IndexSettings
from pipeline.errors import ClipsieveError, ConfigError, on_one_line
from pipeline.settings.load import load_settings
from pipeline.store.view import StoreView

EXAMPLES = "  python -m indexer store --queries vectors.parquet"


def main(argv: list[str]) -> int:
    """Build the index of a store with vectors as queries. Returns the exit code."""
    try:
        settings = load_settings(IndexSettings, "index", argv, EXAMPLES)
        _refuse_others(settings)
        report = build_index(settings, lambda view: _queries(settings, view))
        for line in [*report.notes, *report.manifest.describe()]:
            print(line)
        report.refuse_short(settings)
    except ClipsieveError as error:
        print(f"error: {on_one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what is done is kept: run the same command to resume", file=sys.stderr)
        return 130
    except OSError as error:  # not handled closer to its cause
        print(f"error: {on_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _refuse_others(settings: IndexSettings) -> None:
    """Refuse what only `clipsieve index` does, instead of building an index in its place."""
    for name in ("dry_run", "show", "check", "plot", "as_json", "json_file"):
        if getattr(settings, name):
            flag = "--json" if name == "as_json" else "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} is for `clipsieve index`; `python -m indexer` only builds, leave it out")


def _queries(settings: IndexSettings, view: StoreView) -> TextQueries | str:
    if settings.queries is None:
        return "no --queries were given, and `python -m indexer` embeds no texts"
    return text_queries_of(settings.queries, view.record.encoder.embedding_dim, view.record.text_space)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
