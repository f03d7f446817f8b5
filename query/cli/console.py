"""Output shared by the verbs: results as JSON or tables, and progress lines. Home of `rich` in `query`."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipeline.durable.atomic import write_json
from pipeline.settings.load import OutputSettings

if TYPE_CHECKING:
    from pipeline.monitor.progress import ProgressLine, Tick


def show(settings: OutputSettings, results: dict[str, Any], print_table: Callable[[], None]) -> None:
    """Print a verb's results as JSON or as a table, and write them to a file if one is given.

    Raises:
        StoreError: If the file cannot be written.
    """
    if settings.as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        print_table()
    if settings.json_file:  # last: if it cannot be written, the results are not lost
        write_json(settings.json_file, results)


def note(text: str) -> None:
    """Print a message that is not part of the results, on standard error."""
    print(text, file=sys.stderr)


class Lines:
    """One progress line per condition, one after another, on standard error."""

    def __init__(self) -> None:
        self._open: dict[str, ProgressLine] = {}

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._open.values():
            line.__exit__()

    def __call__(self, name: str, tick: "Tick") -> None:
        """Update the line of a condition."""
        from pipeline.monitor.progress import ProgressLine  # brings pyarrow, which not every verb needs

        if name not in self._open:
            self.__exit__()
            self._open = {name: ProgressLine(name).__enter__()}
        self._open[name](tick)


def console() -> Console:
    """Standard output: as wide as the terminal, or else wide enough not to truncate tables."""
    found = Console(highlight=False, markup=True)
    return found if found.is_terminal else Console(highlight=False, width=160)


def table(title: str, caption: str | None = None, **options: Any) -> Table:
    """An empty table with a left-aligned title and caption."""
    return Table(title=title, title_justify="left", caption=caption, caption_justify="left", **options)


def print_sections(sections: dict[str, dict[str, Any]]) -> None:
    """Print each section as a heading and `name value` lines."""
    to = console()
    for title, facts in sections.items():
        to.print(f"[bold]{title}[/bold]")
        for name, value in facts.items():
            to.print(f"  {name:<22} {value}", markup=False, highlight=False)


def timed(environment: dict[str, Any], precision: str = "") -> str:
    """Where and how the timings were taken, for the caption of their table."""
    place = environment["cpu"] if environment["device"] == "cpu" else environment["device"]
    return (
        f"{place}, {environment['cores']} cores, {precision}torch {environment['torch']}, {environment['date']}; "
        f"median of {environment['rounds']} interleaved rounds, image tower alone"
    )
