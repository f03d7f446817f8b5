"""Tables of what a loss is made of, of mixed galleries, and of gates."""

from query.evaluation.report import words
from query.evaluation.report.tables.table import NOTHING, Cell, Column, Table, cell, plain_table
from query.evaluation.results import Decomposition, Gates, Results


def steps_table(decomposition: Decomposition, number: int) -> Table:
    """The steps of a decomposition."""
    metric = decomposition.metric
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
        for step in decomposition.steps
    ]
    caption = f"{name} on {decomposition.data} after each step, with 95 % intervals; changes add up"
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
