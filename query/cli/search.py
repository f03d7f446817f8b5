"""`clipsieve search`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from query.search_settings import SearchSettings
    from query.searcher import Hit

SUMMARY = "find images with words"
EXAMPLES = (
    '  clipsieve search store "two dogs playing in snow" -k 10\n'
    '  clipsieve search store "a red car" --json\n'
    '  clipsieve search store "a red car" --sheet hits.png\n'
    "  clipsieve search store --vectors queries.parquet --out hits.parquet"
)
SETTINGS = "query.search_settings:SearchSettings"


def run(settings: "SearchSettings") -> None:
    """Search and show the hits."""
    from dataclasses import asdict

    from query.cli.console import note, show
    from query.pictures.sheet import write_sheet
    from query.searcher import search

    if settings.vectors and settings.out:
        _search_vectors(settings, settings.vectors, settings.out)
        return
    warnings: list[str] = []
    query = settings.query or ""
    [hits] = search(settings.store, [query], settings.k, settings.partial, settings.device, on_warning=warnings.append)
    for warning in warnings:
        note(f"warning: {warning}")
    results = {"query": query, "hits": [asdict(hit) for hit in hits], "warnings": warnings}

    def write() -> None:
        for warning in write_sheet(settings.sheet, [(query, hits)]):
            note(f"warning: {warning}")

    show(settings, results, lambda: print_hits(query, hits), write if settings.sheet else None)


def _search_vectors(settings: "SearchSettings", vectors: "Path", out: "Path") -> None:
    from dataclasses import asdict

    from query.cli.console import note, show
    from query.vectors import search_vectors

    warnings: list[str] = []
    report = search_vectors(
        settings.store, vectors, out, settings.k, settings.partial, settings.device, warnings.append
    )
    for warning in warnings:
        note(f"warning: {warning}")
    rate = report.num_queries / max(report.seconds, 1e-9)
    text = (
        f"{report.num_hits} hits of {report.num_queries} queries written to {out} ({rate:.0f} queries/s in the index)"
    )
    show(settings, {"out": str(out), **asdict(report), "warnings": warnings}, lambda: print(text))


def print_hits(query: str, hits: list["Hit"]) -> None:
    """Print the hits of one query."""
    from query.cli.console import console, table

    found = table(query)
    for heading, justify in (("rank", "right"), ("score", "right"), ("key", "left"), ("caption", "left")):
        found.add_column(heading, justify=justify, overflow="fold")
    for hit in hits:
        found.add_row(str(hit.rank), f"{hit.score:.4f}", _printable(hit.key), _printable(hit.caption or ""))
    console().print(found)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
