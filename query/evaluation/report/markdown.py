"""The report as Markdown."""

import re
from collections.abc import Iterator, Sequence

from query.evaluation.report.contents import Contents, OfData
from query.evaluation.report.tables.table import Cell, Table

_SPECIAL = re.compile(r"([\\*_<>\[\]|])")


def markdown(contents: Contents, plots: Sequence[str]) -> str:
    """The Markdown of a report.

    Args:
        contents: What it says.
        plots: Names of the files of plots, in the order of the data sets that have one.
    """
    return "\n".join(_lines(contents, list(plots))).rstrip() + "\n"


def _lines(contents: Contents, plots: list[str]) -> Iterator[str]:
    yield from _answer(contents)
    yield from ("## Recall against speed", "")
    for one in contents.data:
        yield from _of_data(one, plots.pop(0) if one.plot else None)
    yield from _losses_and_examples(contents)
    for title, table in (("Mixed galleries", contents.mixed), ("Gates", contents.gates)):
        if table:
            yield from (f"## {title}", "", *_table(table))
    yield from (f"{_escaped(note)}\n" for note in contents.gate_notes)
    yield from ("## What the words mean", "")
    yield from (f"- **{_escaped(word)}**: {_escaped(text)}" for word, text in contents.definitions)
    yield from ("", "## How it was measured", "")
    for table in (*contents.origin, contents.settings):
        yield from _table(table)
    yield from ("Commands:", "", "```", *contents.commands, "```")


def _answer(contents: Contents) -> Iterator[str]:
    yield from (f"# {_escaped(contents.title)}", "", _escaped(contents.answer), "")
    for warning in contents.warnings:
        yield from (f"Warning: {_escaped(warning)}", "")
    if contents.photos_note:
        yield from (contents.photos_note, "")
    if contents.recommended:
        yield from ("## Recommended settings", "")
    for table in contents.recommended:
        yield from _table(table)
    for use in contents.uses:
        saved = f" with `policy.yaml`: `{use.policy}`" if use.policy else ""
        yield f"- `{use.name}`: `{use.command}`{saved}"
    yield ""


def _losses_and_examples(contents: Contents) -> Iterator[str]:
    if contents.losses:
        yield from ("## Where the loss comes from", "")
    for loss in contents.losses:
        yield from _table(loss.steps)
        for note in loss.notes:
            yield from (_escaped(note), "")
    if contents.examples:
        yield from ("## Example queries", "")
        yield from (f"- {_escaped(one.title)}: {_escaped(one.story)}" for one in contents.examples)
        yield ""


def _of_data(one: OfData, plot: str | None) -> Iterator[str]:
    if plot:
        yield from (f"![{_escaped(one.conditions.caption)}]({plot})", "")
    for table in (one.conditions, one.eight_bits, one.variants, one.fidelity, *one.metrics):
        if table:
            yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield from (f"**{_escaped(table.caption)}**", "")
    yield _row(_escaped(column.title) for column in table.columns)
    yield _row("--:" if column.is_number else "---" for column in table.columns)
    for group in table.groups:
        if group.title:
            yield _row([f"*{_escaped(group.title)}*", *([""] * (len(table.columns) - 1))])
        yield from (_row(map(_cell, row)) for row in group.rows)
    yield ""


def _row(cells: Iterator[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    note = cell.note.replace("\n", "; ")
    return _escaped(f"{cell.text} ({note})" if note else cell.text)


def _escaped(text: str) -> str:
    """Text whose special characters are taken as they are, apart from backticks and what is between them."""
    parts = text.replace("\n", " ").split("`")
    parts[::2] = [_SPECIAL.sub(r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [part.replace("|", "\\|") for part in parts[1::2]]
    return "`".join(parts)
