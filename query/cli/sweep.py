"""`clipsieve sweep`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from query.evaluation.record import DataRecord
    from query.evaluation.results import Estimate, FrontResults, Gates, Results
    from query.evaluation.settings import SweepSettings

SUMMARY = "measure recall against speed for many conditions, with intervals and rivals"
EXAMPLES = (
    "  clipsieve sweep configs/bench/grids/built-in.yaml --out sweep\n"
    "  clipsieve sweep grid.yaml --out sweep --gate --export clip_benchmark,trec\n"
    "  clipsieve sweep --out sweep --report-only\n"
    "  clipsieve sweep grid.yaml --out new --baseline old --strict\n"
    "  clipsieve sweep --keys"
)
SETTINGS = "query.evaluation.settings:SweepSettings"

_TASKS = {"image_retrieval_recall": "t2i R", "text_retrieval_recall": "i2t R"}


def run(settings: "SweepSettings") -> None:
    """Sweep, show the results, and check the gates if that is asked for."""
    from query.cli.console import Lines, note, show
    from query.evaluation.grid.earlier import EarlierPlan
    from query.evaluation.grid.help import describe_keys

    if settings.keys:
        print(describe_keys())
        return
    from query.evaluation.gates import refuse_failed
    from query.evaluation.sweep import sweep

    notes: list[str] = []
    try:
        with Lines("sweep") as lines:
            results = sweep(settings, lines, notes.append)
    except EarlierPlan as error:
        print(error.lines, end="")
        raise
    for text in notes:
        note(text)
    for warning in results.record.warnings:
        note(f"warning: {warning}")
    for text in results.gates.notes if results.gates else ():
        note(f"gates: {text}")
    show(settings, results.as_json(), lambda: print_results(results))
    if results.gates:
        refuse_failed(results.gates, settings.strict)


def print_results(results: "Results") -> None:
    """Print a table for each data set: recall, what it changes, and speed, condition by condition."""
    from query.cli.console import console

    for data in results.record.data:
        console().print(_table(results, data))
    for front in results.fronts:
        for points, key in front.recommended_for_loss.items():
            if key is not None:
                fastest = f"{results.of(key).condition.name!r} is the fastest that loses at most {points} points"
                console().print(f"{front.data}: {fastest} of {front.metric}{_surely(results, front, points, key)}")
    for text in _against_float(results):
        console().print(text)
    if results.gates:
        console().print(_gates_table(results.gates))


def _against_float(results: "Results") -> Iterator[str]:
    """A line for each condition in 8 bits and data set: what it changes against the same in float."""
    for row in results.conditions:
        for data, on in row.on.items():
            if on.against_float:
                name, speed = results.of(on.against_float.key).condition.name, row.speedup_over_float
                faster = f" {_interval(speed, '.2f')} times as fast," if speed else ""
                sums = [
                    f"{_short(metric)} {_interval(change, '+.1f', 100)}"
                    for metric, change in on.against_float.differences.items()
                    if "+" in metric
                ]
                cosine = f"cosine {on.against_float.fidelity['cosine_mean']:.4f}"
                yield f"{data}: {row.condition.name!r} against {name!r}:{faster} {', '.join([*sums, cosine])}"


def _surely(results: "Results", front: "FrontResults", points: str, key: str) -> str:
    """Whether that is so by the whole interval, too; otherwise, of which condition it is."""
    surely = front.surely_within_loss.get(points, [])
    if key in surely:
        return ", by its whole interval"
    others = f"; by the whole interval, {results.of(surely[0]).condition.name!r} is" if surely else ""
    return f", by the estimate{others}"


def _table(results: "Results", data: "DataRecord") -> "Table":
    from query.cli.console import table

    found = table(f"{data.name}: {_counts(data.counts)}; recall in %, 95 % intervals", _caption(results))
    rows = [row for row in results.conditions if data.name in row.on]
    metrics, judged = _shown(results.record.grid, rows[0].on[data.name].metrics)
    for heading in ("condition", *map(_short, metrics), f"{_short(judged)} change"):
        found.add_column(heading, justify="left" if heading == "condition" else "right")
    has_queries = any(row.query_ms for row in rows)
    for heading in ("images/s", "speed-up", *(["ms/query"] if has_queries else [])):
        found.add_column(heading, justify="right")
    for row in rows:
        on = row.on[data.name]
        change = on.differences.get(judged)
        found.add_row(
            f"{row.condition.name}{' (rival)' if row.condition.role == 'rival' else ''}",
            *[f"{100 * on.metrics[name].value:.1f}" if name in on.metrics else "-" for name in metrics],
            _interval(change, "+.1f", 100) if change else "",
            f"{row.speed.images_per_second.value:.1f}" if row.speed else "-",
            _interval(row.speed.speedup, ".2f") if row.speed else "-",
            *([f"{row.query_ms.value:.3f}" if row.query_ms else "-"] if has_queries else []),
        )
    return found


def _gates_table(gates: "Gates") -> "Table":
    from query.cli.console import table

    counts = ", ".join(f"{number} {status}" for status, number in gates.counts.items())
    found = table(f"gates: {counts}", "95 % intervals; DRIFT: the interval is on both sides of the bound")
    for heading in ("gate", "condition", "data", "metric", "found", "bound"):
        found.add_column(heading)
    for row in gates.rows:
        found.add_row(row.status, row.condition, row.data, row.metric, row.found, row.bound)
    return found


def _shown(grid: dict[str, Any], metrics: dict[str, "Estimate"]) -> tuple[list[str], str]:
    """The metrics of the table, and the one whose change it shows: that of the grid, if this data set has it."""
    shown = [f"{task}_recall@{k}" for task in ("image_retrieval", "text_retrieval") for k in grid["ks"]]
    shown = [name for name in ("acc1", "acc5", *shown) if name in metrics]
    return shown, grid["metric"] if grid["metric"] in metrics else shown[0]


def _short(metric: str) -> str:
    """For example `t2i R@5`."""
    task, at, k = metric.partition("@")
    return f"{_TASKS.get(task, task)}{at}{k}"


def _interval(estimate: "Estimate", form: str, factor: float = 1) -> str:
    value, low, high = (format(factor * number, form) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low}..{high})"


def _counts(counts: dict[str, int]) -> str:
    named = {name.removeprefix("num_").replace("_", " "): number for name, number in counts.items()}
    return ", ".join(f"{number} {name}" for name, number in named.items() if number)


def _caption(results: "Results") -> str:
    environment = results.record.environment
    place = environment["cpu"] if environment["device"] == "cpu" else environment["device"]
    rounds = max((row.speed.num_rounds for row in results.conditions if row.speed), default=0)
    return (
        f"{place}, {environment['cores']} cores, torch {environment['torch']}, {environment['date']}; "
        f"speed: image tower alone, {rounds} interleaved rounds; change: against {results.record.baseline.name!r}"
    )
