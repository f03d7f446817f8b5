"""`clipsieve search`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from query.hits.hits import Hit, Hits
    from query.queries.request import Request
    from query.search_settings import SearchSettings
    from query.searcher import Searcher

SUMMARY = "find images with words"
EXAMPLES = (
    '  clipsieve search store "two dogs playing in snow" -k 10\n'
    '  clipsieve search store "a red car" --where "width > 512 and license = \'CC BY\'" --sheet hits.png\n'
    '  clipsieve search store \'"beach" + 0.5*"sunset" - "people"\' --min-relevance 1 --json\n'
    '  clipsieve search store --image photo.jpg "at night"\n'
    "  clipsieve search store --queries texts.txt --out hits.parquet"
)
SETTINGS = "query.search_settings:SearchSettings"


def run(settings: "SearchSettings") -> None:
    """Search, and show or write the hits."""
    from query.cli.console import note
    from query.searcher import Searcher

    if len(settings.query) > 1 and not any(" " in text for text in settings.query):
        note(f"{len(settings.query)} queries of one word each; put a query of several words in quotation marks")
    requests = _requests(settings)
    with Searcher.open(settings.store, partial=settings.partial, device=settings.device) as searcher:
        if settings.file:
            _search_file(settings, searcher, settings.file)
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


def _search_file(settings: "SearchSettings", searcher: "Searcher", queries: "Path") -> None:
    from dataclasses import asdict

    from query.batch import search_file
    from query.cli.console import show

    report = search_file(searcher, queries, settings.out, settings.options, settings.template)
    _warn(report.warnings)
    rate = report.num_queries / max(report.seconds, 1e-9)
    text = f"{report.num_hits} hits of {report.num_queries} queries written to {settings.out} ({rate:.0f} queries/s)"
    show(settings, {"out": str(settings.out), **asdict(report)}, lambda: print(text))


def print_hits(title: str, hits: "Sequence[Hit]") -> None:
    """Print the hits of one query."""
    from query.cli.console import console, table

    found = table(_printable(title))
    columns = (("rank", "right"), ("score", "right"), ("relevance", "right"), ("key", "left"), ("caption", "left"))
    for heading, justify in columns:
        found.add_column(heading, justify=justify, overflow="fold")
    for hit in hits:
        relevance = "" if hit.relevance is None else f"{hit.relevance:.2f}"
        texts = (_printable(hit.key), _printable(hit.caption or ""))
        found.add_row(str(hit.rank), f"{hit.score:.4f}", relevance, *texts)
    console().print(found)


def _warn(warnings: "Iterable[str]") -> None:
    from query.cli.console import note

    for warning in dict.fromkeys(warnings):
        note(f"warning: {warning}")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
