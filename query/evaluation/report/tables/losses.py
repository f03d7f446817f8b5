"""What a loss is made of, mixed galleries, and gates."""

from dataclasses import dataclass

from query.evaluation.report import words
from query.evaluation.report.tables.table import NOTHING, Cell, Column, Table, cell, plain_table
from query.evaluation.results import Decomposition, Estimate, Gates, Results, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Decompositions that differ only in the operating point of the index, as one: each point follows exact search."""

    name: str
    """Of the condition that is searched: the last step before an index."""
    data: str
    metric: str
    steps: list[Step]
    before: list[int]
    """For each step, the number of the one that it is a change from; its own for the first."""
    recovery: Estimate | None
    notes: list[str]


def losses_of(results: Results) -> list[Losses]:
    """The decompositions of a sweep, those of the same vectors together."""
    indexes = {found.condition.key for found in results.conditions if found.condition.role == "index"}
    together: dict[tuple[str, ...], list[Decomposition]] = {}
    for found in results.decompositions:
        exact = [step.key for step in found.steps if step.key not in indexes]
        together.setdefault((found.data, found.metric, *exact), []).append(found)
    losses = []
    for some in together.values():
        exact = [step for step in some[0].steps if step.key not in indexes]
        points = [step for found in some for step in found.steps if step.key in indexes]
        before = [max(number - 1, 0) for number in range(len(exact))] + [len(exact) - 1] * len(points)
        notes = list(dict.fromkeys(note for found in some for note in found.notes))
        losses.append(
            Losses(
                name=exact[-1].name,
                data=some[0].data,
                metric=some[0].metric,
                steps=exact + points,
                before=before,
                recovery=some[0].recovery,
                notes=notes,
            )
        )
    return losses


def steps_table(losses: Losses, number: int) -> Table:
    """The steps of a loss."""
    metric = losses.metric
    name = words.short(metric)
    points = ", points" if words.is_share(metric) else ""
    columns = [
        Column("Step", is_number=False),
        Column(f"{name}{words.unit(metric)}"),
        Column(f"Change by this step{points}"),
        Column(f"Change so far{points}"),
    ]
    rows = [
        [
            Cell(words.code(step.name)),
            cell(words.value(metric, step.total)),
            cell(words.difference(metric, step.change)) if step.change else NOTHING,
            cell(words.difference(metric, step.from_first)) if step.from_first else NOTHING,
        ]
        for step in losses.steps
    ]
    caption = f"{name} on {losses.data} after each step, with 95 % intervals; changes add up"
    return plain_table(f"steps-{number}", caption, columns, rows)


def mixed_table(results: Results) -> Table:
    """The galleries that mix the images of two conditions."""
    metrics = list(dict.fromkeys(metric for found in results.mixed for metric in found.recall))
    columns = [
        Column("Conditions", is_number=False),
        Column("Data", is_number=False),
        Column("Share of the top, %"),
        Column("Fair share, %"),
        *(Column(words.short(metric) + words.unit(metric)) for metric in metrics),
        Column("Advice", is_number=False),
    ]
    name_of = {found.condition.key: found.condition.name for found in results.conditions}
    rows = []
    for found in results.mixed:
        first, second = words.code(name_of[found.first]), words.code(name_of[found.second])
        share = words.value("recall@", found.share)
        rows.append(
            [
                Cell(f"{first} and {second}"),
                Cell(found.data),
                Cell(share[0], f"{share[1]}\n{first} in the top {found.k}".strip()),
                Cell(f"{100 * found.expected:.1f}"),
                *(cell(words.value(name, found.recall[name])) if name in found.recall else NOTHING for name in metrics),
                Cell(found.advice),
            ]
        )
    return plain_table("mixed", "Galleries with half of the images from each of two conditions", columns, rows)


def gates_table(gates: Gates) -> Table:
    """The gates and how they fared."""
    titles = ("Gate", "Condition", "Data", "Bound", "Found", "Asked for in")
    columns = [Column(title, is_number=False) for title in titles]
    rows = [
        [
            Cell(row.status),
            Cell(words.code(row.condition)),
            Cell(row.data),
            Cell(f"{words.short(row.metric)}: {row.bound}"),
            Cell(row.found),
            Cell(row.place),
        ]
        for row in gates.rows
    ]
    counts = ", ".join(f"{count} {status}" for status, count in gates.counts.items())
    against = words.code(gates.baseline) if gates.baseline else "the unpruned model"
    return plain_table("gates", f"{counts}; losses are against {against}", columns, rows)
