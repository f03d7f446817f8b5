"""How `clipsieve search --store2` shows two rankings."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from query.hits.compare import Comparison, Pair


def print_comparison(comparison: "Comparison", names: tuple[str, str]) -> None:
    """Print the hits of two stores in one table, and below it how much they agree and the time that each took."""
    from query.cli.console import console, printable, table

    found = table(printable(comparison.first.request.title), "\n".join(_summary(comparison, names)))
    for heading in ("rank 1", "rank 2", "moved", "score 1", "score 2"):
        found.add_column(heading, justify="right")
    for heading in ("key", "caption"):
        found.add_column(heading, overflow="fold")
    for pair in comparison.pairs:
        hits = (pair.first, pair.second)
        ranks = [str(hit.rank) if hit else "" for hit in hits]
        scores = [f"{hit.score:.4f}" if hit else "" for hit in hits]
        caption = printable((pair.first or pair.second).caption or "")
        found.add_row(*ranks, movement(pair), *scores, printable(pair.key), caption)
    console().print(found)


def movement(pair: "Pair") -> str:
    """How an image moved from the first ranking to the second: +3, -2, =, new or gone.

    `new, not in 1` says that the first store does not have the image at all, and `gone, not in 2` likewise.
    """
    if pair.moved is not None:
        return f"{pair.moved:+d}" if pair.moved else "="
    if pair.second:
        return "new, not in 1" if pair.in_first is False else "new"
    return "gone, not in 2" if pair.in_second is False else "gone"


def _summary(comparison: "Comparison", names: tuple[str, str]) -> list[str]:
    lines = []
    for number, name, hits in zip((1, 2), names, (comparison.first, comparison.second), strict=True):
        lines.append(f"{number}: {name}, {hits.timings.total:.1f} ms ({hits.timings.stages})")
        lines += [f"{number}: {note}" for note in hits.notes]
    if comparison.overlap is not None:
        k = comparison.first.request.options.k
        lines.append(f"overlap@{k} {comparison.overlap:.2f}, rank-biased overlap {comparison.rank_biased_overlap:.2f}")
    return lines
