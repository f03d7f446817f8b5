"""`clipsieve search`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from query.searcher import Hit
    from query.settings import SearchSettings

SUMMARY = "find images with words"
EXAMPLES = (
    '  clipsieve search store "two dogs playing in snow" -k 10\n'
    '  clipsieve search store "a red car" --json\n'
    '  clipsieve search store "a red car" --sheet hits.png'
)
SETTINGS = "query.settings:SearchSettings"


def run(settings: "SearchSettings") -> None:
    """Search and show the hits."""
    from dataclasses import asdict

    from query.cli.console import note, show
    from query.pictures.sheet import write_sheet
    from query.searcher import search

    warnings: list[str] = []
    [hits] = search(
        settings.store, [settings.query], settings.k, settings.partial, settings.device, on_warning=warnings.append
    )
    for warning in warnings:
        note(f"warning: {warning}")
    results = {"query": settings.query, "hits": [asdict(hit) for hit in hits], "warnings": warnings}

    def write() -> None:
        for warning in write_sheet(settings.sheet, [(settings.query, hits)]):
            note(f"warning: {warning}")

    show(settings, results, lambda: print_hits(settings.query, hits), write if settings.sheet else None)


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
