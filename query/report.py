"""Tables for people. Home of `rich` tables; prints to standard output."""

from typing import Any

from rich.console import Console
from rich.table import Table

from query.search import Hit


def print_results(results: dict[str, Any]) -> None:
    """Print an evaluation: one row a condition, and under each pruned one the paired difference."""
    table = Table(title=_title(results), title_justify="left", caption=_caption(results), caption_justify="left")
    for heading in ("condition", "t2i R@1", "R@5", "R@10", "i2t R@1", "R@5", "R@10"):
        table.add_column(heading, justify="left" if heading == "condition" else "right")
    for heading in ("images/s", "end to end", "GMACs"):
        table.add_column(heading, justify="right")
    for condition in results["conditions"]:
        end_to_end = condition["images_per_second_end_to_end"]
        table.add_row(
            condition["name"],
            *[f"{100 * value:.1f}" for value in condition["metrics"].values()],
            f"{condition['images_per_second']:.1f}",
            f"{end_to_end:.1f}" if end_to_end else "-",
            f"{condition['gmacs']:.3f}",
        )
        if "deltas" in condition:
            speedup = condition["speedup"]
            table.add_row(
                "  difference",
                *[f"{100 * delta['value']:+.1f}" for delta in condition["deltas"].values()],
                f"{speedup['measured']:.2f}x",
                "",
                f"{speedup['theoretical']:.2f}x",
                style="bold",
            )
            intervals = [delta["ci95"] for delta in condition["deltas"].values()]
            table.add_row("  95 %", *[f"{100 * low:+.1f}..{100 * high:+.1f}" for low, high in intervals], style="dim")
    _console().print(table)


def print_hits(query: str, hits: list[Hit]) -> None:
    """Print the answers to one query."""
    table = Table(title=query, title_justify="left")
    for heading, justify in (("rank", "right"), ("score", "right"), ("key", "left"), ("caption", "left")):
        table.add_column(heading, justify=justify, overflow="fold")
    for hit in hits:
        table.add_row(str(hit.rank), f"{hit.score:.4f}", _printable(hit.key), _printable(hit.caption or ""))
    _console().print(table)


def print_sections(sections: dict[str, dict[str, Any]]) -> None:
    """Print nested facts, a heading and `name value` lines each."""
    console = _console()
    for title, facts in sections.items():
        console.print(f"[bold]{title}[/bold]")
        for name, value in facts.items():
            console.print(f"  {name:<22} {value}", markup=False, highlight=False)


def _title(results: dict[str, Any]) -> str:
    tag = f" / {results['pretrained']}" if results["pretrained"] else ""
    failed = f", {results['num_failed_images']} failed" if results["num_failed_images"] else ""
    counts = f"{results['num_images']} images{failed}, {results['num_captions']} captions"
    return f"{results['model']}{tag} on {results['dataset']}: {counts}; recall in %"


def _caption(results: dict[str, Any]) -> str:
    environment = results["environment"]
    return (
        f"{environment['device']}, {environment['cpu']}, {environment['cores']} cores, {environment['precision']}, "
        f"torch {environment['torch']}, {environment['date']}; images/s: image tower alone"
    )


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _console() -> Console:
    # a pipe has no width: cut nothing there
    console = Console(highlight=False, markup=True)
    return console if console.is_terminal else Console(highlight=False, width=160)
