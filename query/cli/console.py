"""Output shared by the verbs: results as JSON or tables, and progress lines. Home of `rich` in `query`."""

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipeline.durable.atomic import write_json
from pipeline.errors import ClipsieveError, on_one_line
from pipeline.settings.load import OutputSettings

if TYPE_CHECKING:
    from pipeline.monitor.progress import ProgressLine, Tick


def show(
    settings: OutputSettings,
    results: dict[str, Any],
    print_table: Callable[[], None],
    *writers: Callable[[], None] | None,
) -> None:
    """Print a verb's results as JSON or as a table, then write files. If one output fails, the others still follow.

    Args:
        settings: How to output them; they may name a JSON file.
        results: The results.
        print_table: Prints them for people.
        writers: Write other files; None stands for a file that was not asked for.

    Raises:
        ClipsieveError: If an output failed. More than one failure is printed, and the first one raised.
    """

    def print_results() -> None:
        if settings.as_json:
            print(json.dumps(results, indent=2, ensure_ascii=False))
        else:
            print_table()
        sys.stdout.flush()  # a reader that has gone is noticed here

    def write_results() -> None:
        if settings.json_file:
            write_json(settings.json_file, results)

    errors: list[Exception] = []
    for output in (print_results, write_results, *writers):
        try:
            if output:
                output()
        except (ClipsieveError, OSError) as error:
            errors.append(error)
    for error in errors[1:]:
        note(f"error: {error}")
    if errors:
        raise errors[0]


def note(text: str) -> None:
    """Print a message of one line that is not part of the results, on standard error."""
    print(on_one_line(text), file=sys.stderr)


def printable(text: str) -> str:
    """A text as it is, but for what would control the terminal or break the line of a table."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class Lines:
    """Progress on standard error: one line per step or condition, one after another."""

    def __init__(self, verb: str) -> None:
        """Begin with the line of the verb, for what comes before its first step."""
        self._name, self._line = verb, _progress_line(verb)

    def __enter__(self) -> "Lines":
        self._line.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.__exit__()

    def __call__(self, name: str, tick: "Tick") -> None:
        """Update the line of a step."""
        if name != self._name:
            self._line.__exit__()
            self._name, self._line = name, _progress_line(name).__enter__()
        self._line(tick)


class Steps(Lines):
    """Progress of steps of one kind of work: what is done of each, and the time that is left of it."""

    def step(self, name: str, num_done: int, num_total: int) -> None:
        """Update the line of a step."""
        from pipeline.monitor.progress import Tick

        if name != self._name or num_done == 0:
            self._started = time.perf_counter()
        elapsed = time.perf_counter() - self._started
        rate = num_done / elapsed if elapsed > 0 else 0.0
        self(name, Tick(num_done, num_total, 0, rate, is_of_images=False))


def _progress_line(title: str) -> "ProgressLine":
    from pipeline.monitor.progress import ProgressLine  # brings pyarrow, which not every verb needs

    return ProgressLine(title)


def console() -> Console:
    """Standard output: as wide as the terminal, or else wide enough not to truncate tables."""
    # without markup and emoji codes: names, keys and captions are shown as they are
    plain = {"highlight": False, "markup": False, "emoji": False}
    found = _Console(**plain)
    return found if found.is_terminal else _Console(**plain, width=160)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise the error as it is. Rich would end the process, before the results are written to their file."""
        raise  # rich calls this while it handles the error


def table(title: str, caption: str | None = None, **options: Any) -> Table:
    """An empty table with a left-aligned title and caption."""
    return Table(title=title, title_justify="left", caption=caption, caption_justify="left", **options)


def print_sections(sections: dict[str, dict[str, Any]]) -> None:
    """Print each section as a heading and `name value` lines."""
    to = console()
    for title, facts in sections.items():
        to.print(title, style="bold")
        for name, value in facts.items():
            to.print(f"  {name:<22} {value}")


def timed(environment: dict[str, Any], precision: str = "") -> str:
    """Where and how the timings were taken, for the caption of their table."""
    place = environment["cpu"] if environment["device"] == "cpu" else environment["device"]
    return (
        f"{place}, {environment['cores']} cores, {precision}torch {environment['torch']}, {environment['date']}; "
        f"median of {environment['rounds']} interleaved rounds, image tower alone"
    )
