"""`clipsieve search`."""

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from query.hits.hits import Hits
    from query.queries.request import Request
    from query.search_settings import SearchSettings
    from query.searcher import Searcher

SUMMARY = "find images with words"
EXAMPLES = (
    '  clipsieve search store "two dogs playing in snow" -k 10\n'
    '  clipsieve search store "a red car" --where "width > 512 and license = \'CC BY\'" --sheet hits.png\n'
    '  clipsieve search store \'"beach" + 0.5*"sunset" - "people"\' --min-relevance 1 --json\n'
    '  clipsieve search store --image photo.jpg "at night"\n'
    '  clipsieve search unpruned "two dogs" --store2 pruned\n'
    "  clipsieve search store --queries texts.txt --out hits.parquet"
)
SETTINGS = "query.search_settings:SearchSettings"
MOST_OF_A_TITLE = 300
"""Characters of a query that are shown above its hits."""


def run(settings: "SearchSettings") -> None:
    """Search, and show or write the hits."""
    from query.cli.console import note
    from query.searcher import Searcher

    if len(settings.query) > 1 and not any(" " in text for text in settings.query):
        note(f"{len(settings.query)} queries of one word each; put a query of several words in quotation marks")
    requests = _requests(settings)
    # of two stores, the times are compared: neither may have the vector of a text from before
    opened = {"partial": settings.partial, "device": settings.device, "kept_texts": 0 if settings.store2 else 1_024}
    with Searcher.open(settings.store, **opened) as searcher:
        if settings.file:
            _search_file(settings, searcher, settings.file)
        elif settings.store2:
            with Searcher.open(settings.store2, **opened) as second:
                for one in (searcher, second):
                    one.ask_all(requests)  # loads the model, which is no part of the times that are compared
                _show_comparison(settings, searcher.ask_all(requests), second.ask_all(requests))
        else:
            _show_hits(settings, searcher.ask_all(requests))


def _requests(settings: "SearchSettings") -> list["Request"]:
    from query.queries.request import Request

    common: dict[str, Any] = {
        "templates": settings.template,
        "images": settings.image,
        "like": tuple(int(one) if one.isdecimal() else one for one in settings.like),
        "options": settings.options,
    }
    texts = settings.query or (() if settings.file else (None,))
    return [Request(text=text, **common) for text in texts]


def _show_hits(settings: "SearchSettings", answers: list["Hits"]) -> None:
    from query.cli.console import show
    from query.hits.writers import write_hits
    from query.pictures.sheet import write_sheet

    _warn(warning for hits in answers for warning in hits.warnings)
    results = [hits.to_dict() for hits in answers]

    def print_answers() -> None:
        for hits in answers:
            print_hits(hits.request.title, hits)

    def write_picture() -> None:
        _warn(write_sheet(settings.sheet, [(hits.request.title, hits) for hits in answers]))

    show(
        settings,
        results[0] if len(results) == 1 else {"answers": results},
        print_answers,
        (lambda: write_hits(settings.out, [hits.table for hits in answers])) if settings.out else None,
        write_picture if settings.sheet else None,
    )


def _show_comparison(settings: "SearchSettings", first: list["Hits"], second: list["Hits"]) -> None:
    from query.cli.comparison import print_comparison
    from query.cli.console import show
    from query.hits.compare import compare
    from query.hits.writers import write_hits
    from query.pictures.sheet import write_sheet

    pairs, names = list(zip(first, second, strict=True)), (str(settings.store), str(settings.store2))
    for name, answers in zip(names, (first, second), strict=True):
        _warn(f"{name}: {warning}" for hits in answers for warning in hits.warnings)
    compared = [compare(*pair) for pair in pairs]
    results = [{"stores": names, **one.to_dict()} for one in compared]

    def write_picture() -> None:
        titled = [
            (f"{hits.request.title} ({name})", hits) for pair in pairs for name, hits in zip(names, pair, strict=True)
        ]
        _warn(write_sheet(settings.sheet, titled))

    show(
        settings,
        results[0] if len(results) == 1 else {"comparisons": results},
        lambda: [print_comparison(one, names) for one in compared],
        (lambda: write_hits(settings.out, [one.to_arrow() for one in compared])) if settings.out else None,
        write_picture if settings.sheet else None,
    )


def _search_file(settings: "SearchSettings", searcher: "Searcher", queries: "Path") -> None:
    from dataclasses import asdict

    from query.batch import search_file
    from query.cli.console import show

    report = search_file(searcher, queries, settings.out, settings.options, settings.template)
    _warn(report.warnings)
    rate = report.num_queries / max(report.seconds, 1e-9)
    text = f"{report.num_hits} hits of {report.num_queries} queries written to {settings.out} ({rate:.0f} queries/s)"
    show(settings, {"out": str(settings.out), **asdict(report)}, lambda: print(text))


def print_hits(title: str, hits: "Hits") -> None:
    """Print the hits of one query, a line above the weak matches, and what there is to know."""
    from query.cli.console import console, printable, table
    from query.hits.notes import WEAK_BELOW, num_strong

    is_unique = hits.request.options.duplicate_cosine is not None
    found = table(
        textwrap.shorten(printable(title), MOST_OF_A_TITLE, placeholder=" ..."), "\n".join(hits.notes) or None
    )
    for heading in ("rank", "score", "relevance", *(["duplicates"] if is_unique else [])):
        found.add_column(heading, justify="right", overflow="fold")
    for heading in ("key", "caption"):
        found.add_column(heading, overflow="fold")
    strong = num_strong(hits)
    for number, hit in enumerate(hits):
        if number == strong > 0:
            found.add_section()
            found.add_row(*[""] * (4 if is_unique else 3), WEAK_BELOW, "")
        relevance = "" if hit.relevance is None else f"{hit.relevance:.2f}"
        numbers = (str(hit.rank), f"{hit.score:.4f}", relevance, *([str(hit.duplicates)] if is_unique else []))
        found.add_row(*numbers, printable(hit.key), printable(hit.caption or ""))
    console().print(found)


def _warn(warnings: "Iterable[str]") -> None:
    from query.cli.console import note

    for warning in dict.fromkeys(warnings):
        note(f"warning: {warning}")
