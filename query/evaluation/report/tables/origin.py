"""Tables of what the numbers come from: the data sets and the environment."""

from typing import Any

from query.evaluation.report import words
from query.evaluation.report.tables.table import Cell, Column, Table, plain_table
from query.evaluation.results import Results

_COUNTS = {
    "num_images": "Images",
    "num_own": "Own images",
    "num_distractors": "Distractors",
    "num_queries": "Queries",
    "num_left_out": "Captions left out",
    "num_failed": "Images that failed",
}


def data_table(results: Results) -> Table:
    """The data sets, their counts and the hash of their splits."""
    counts = list(dict.fromkeys([*_COUNTS, *(name for data in results.record.data for name in data.counts)]))
    columns = [
        Column("Data set", is_number=False),
        Column("Kind", is_number=False),
        *(Column(_COUNTS.get(name, name.removeprefix("num_").replace("_", " ").capitalize())) for name in counts),
        Column("SHA-256 of the split", is_number=False),
    ]
    rows = [
        [
            Cell(words.code(data.name), data.location),
            Cell(data.kind),
            *(Cell(f"{data.counts[name]:,}" if name in data.counts else "") for name in counts),
            Cell(words.code(data.sha256)),
        ]
        for data in results.record.data
    ]
    return plain_table("data", "The data sets", columns, rows)


def environment_table(results: Results) -> Table:
    """Where and with what the sweep ran."""
    record = results.record
    known = {
        "clipsieve": record.clipsieve_version,
        **_flat(record.environment),
        "rounds": record.grid.get("rounds"),
        "environment key": words.code(record.environment_key),
        "SHA-256 of the grid": words.code(record.grid_sha256),
    }
    rows = [[Cell(name.replace("_", " ")), Cell(str(value))] for name, value in known.items() if value is not None]
    columns = [Column("What", is_number=False), Column("Value", is_number=False)]
    return plain_table("environment", "The environment", columns, rows)


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name} ")
        elif name != "command":  # the commands stand by themselves
            flat[f"{before}{name}"] = value
    return flat
