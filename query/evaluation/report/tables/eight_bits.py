"""The table of what 8 bits change: each condition beside the same one in a float type."""

from query.evaluation.report import words
from query.evaluation.report.tables.table import NOTHING, Cell, Column, Table, cell, plain_table
from query.evaluation.results import Results

_COSINES = ("cosine_mean", "cosine_p5")


def eight_bits_table(results: Results, data: str, metric: str) -> Table | None:
    """Speed, recall and cosines of conditions in 8 bits against float; None if there are none."""
    rows = [one for one in results.conditions if data in one.on and one.on[data].against_float]
    if not rows:
        return None
    known = rows[0].on[data].against_float.differences
    metrics = list(dict.fromkeys(name for name in (metric, *(name for name in known if "+" in name)) if name in known))
    columns = [
        Column("Condition", is_number=False),
        Column("The same in float", is_number=False),
        Column("Speed-up over it"),
        *(Column(f"{words.short(name)}{', points' if words.is_share(name) else ''}") for name in metrics),
        Column("Cosine to it, mean"),
        Column("5th percentile"),
    ]
    cells = []
    for one in rows:
        against = one.on[data].against_float
        speedup = one.speedup_over_float
        cells.append(
            [
                Cell(words.code(one.condition.name)),
                Cell(words.code(results.of(against.key).condition.name), results.of(against.key).condition.precision),
                cell(words.times(speedup)) if speedup else NOTHING,
                *(cell(words.difference(name, against.differences[name])) for name in metrics),
                *(Cell(f"{against.fidelity[name]:.4f}" if name in against.fidelity else "") for name in _COSINES),
            ]
        )
    number = list(dict.fromkeys(name for found in results.conditions for name in found.on)).index(data)
    return plain_table(f"eight-bits-{number}", f"What 8 bits change on {data}, with 95 % intervals", columns, cells)
