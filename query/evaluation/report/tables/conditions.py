"""Tables with one row for each condition."""

import json
from collections.abc import Callable, Sequence

from query.evaluation.raw.folder import SweepFolder
from query.evaluation.report import words
from query.evaluation.report.tables.table import NOTHING, Cell, Column, Group, Table, cell
from query.evaluation.results import ConditionResults, Estimate, FrontResults, Results

_FIDELITY = {
    "overlap@10": "overlap of the first 10",
    "overlap@100": "overlap of the first 100",
    "cosine_mean": "cosine, mean",
    "cosine_p5": "cosine, 5th percentile",
    "cosine_p50": "cosine, median",
    "cosine_min": "cosine, smallest",
}
_TASKS = {"image_retrieval": "text to image", "text_retrieval": "image to text", "acc": "classes"}


def conditions_table(results: Results, data: str, metric: str, front: FrontResults | None) -> Table:
    """The main table of a data set: recall, loss and speed."""
    name = words.short(metric)
    points = ", points" if words.is_share(metric) else ""
    columns = [
        Column("Condition", is_number=False),
        Column(f"{name}{words.unit(metric)}"),
        Column(f"Difference{points}"),
        Column("Images/s"),
        Column("Speed-up"),
        Column("Fewer multiply-adds"),
        Column("Tokens left"),
    ]
    gmacs = results.record.baseline.gmacs

    def row(found: ConditionResults) -> list[Cell]:
        on, condition = found.on[data], found.condition
        is_on_front = front is not None and condition.key in front.keys
        return [
            Cell(words.code(condition.name), "on the front" if is_on_front else ""),
            cell(words.value(metric, on.metrics[metric])) if metric in on.metrics else NOTHING,
            _difference(metric, on.differences.get(metric)),
            cell(words.rate(found.speed.images_per_second)) if found.speed else _query_time(found),
            cell(words.times(found.speed.speedup)) if found.speed else NOTHING,
            Cell(f"{gmacs / condition.gmacs:.2f}x" if condition.gmacs else ""),
            Cell(str(condition.tokens_kept)),
        ]

    caption = (
        f"All conditions on {data}: {name} and its difference to the unpruned model, and speed, with 95 % intervals"
    )
    return _by_series("conditions-of", caption, columns, results, data, row)


def metric_tables(results: Results, data: str) -> list[Table]:
    """All strict metrics of a data set, task by task: values, then differences."""
    metrics = [name for name in _metrics_of(results, data) if words.variant_of(name) is None]
    tables = []
    for start, task in _TASKS.items():
        some = [name for name in metrics if name.startswith(start)]
        if some:
            tables.append(_metric_table(results, data, some, f"metrics-{start}", task))
            tables.append(_difference_table(results, data, some, f"differences-{start}", task))
    return tables


def variants_table(results: Results, data: str, metric: str) -> Table | None:
    """One metric by each rule for ties and duplicates; None if only the strict one was computed."""
    known = _metrics_of(results, data)
    names = [metric, *(name for variant in words.VARIANTS if (name := f"{metric}({variant})") in known)]
    if len(names) == 1 or metric not in known:
        return None
    titles = ["strict", *(words.variant_of(name) or "" for name in names[1:])]
    columns = [Column("Condition", is_number=False), *map(Column, titles)]
    caption = f"{words.short(metric)} on {data}{words.unit(metric)}, by each rule for ties and near-duplicates"
    return _by_series("variants", caption, columns, results, data, _values_of(data, names))


def fidelity_table(results: Results, data: str) -> Table | None:
    """Agreement with the unpruned model; None if it was not measured."""
    names = list(
        dict.fromkeys(name for found in results.conditions if data in found.on for name in found.on[data].fidelity)
    )
    if not names:
        return None
    columns = [Column("Condition", is_number=False), *(Column(_fidelity_name(name)) for name in names)]

    def row(found: ConditionResults) -> list[Cell]:
        fidelity = found.on[data].fidelity
        return [_name(found), *(Cell(f"{fidelity[name]:.3f}" if name in fidelity else "") for name in names)]

    caption = f"Agreement with the unpruned model on {data}, without labels; 1 is full agreement"
    return _by_series("fidelity", caption, columns, results, data, row, has_baseline=False)


def settings_table(results: Results, folder: SweepFolder) -> Table:
    """What each condition is, and where its raw ranks are."""
    titles = ("Condition", "Settings", "Encoder", "Raw ranks")
    columns = [Column(title, is_number=False) for title in titles]
    rows = []
    for found in results.conditions:
        condition = found.condition
        files = [folder.ranks(condition.key, data).relative_to(folder.root).as_posix() for data in found.on]
        rows.append(
            [
                Cell(words.code(condition.name), condition.series),
                Cell(_settings(found)),
                Cell(words.code(condition.fingerprint)),
                Cell(", ".join(words.code(file) for file in files)),
            ]
        )
    return Table("settings", "What each condition is, and where the raw ranks are", columns, [Group("", rows)])


def _settings(found: ConditionResults) -> str:
    condition = found.condition
    parts = [f"{condition.model}{f', {condition.pretrained}' if condition.pretrained else ''}"]
    parts.append(f"{condition.image_size} px, {condition.precision}")
    if condition.adapter:
        digest = f" ({condition.adapter_sha256[:12]})" if condition.adapter_sha256 else ""
        parts.append(f"adapter {condition.adapter}{digest}")
    if condition.index:
        index = condition.index
        parts.append(f"index {index.recipe}, effort {index.effort}, {index.candidates} candidates")
        parts.append(f"{index.num_bytes / 1e6:,.1f} MB")
    policy = json.dumps(condition.policy, ensure_ascii=False) if condition.policy else None
    return "; ".join(parts) + (f"; policy {words.code(policy)}" if policy else "; no policy")


def _metric_table(results: Results, data: str, metrics: Sequence[str], id: str, task: str) -> Table:
    columns = [
        Column("Condition", is_number=False),
        *(Column(_in_task(name) + words.unit(name)) for name in metrics),
    ]
    caption = f"All metrics on {data}, {task}, strict"
    return _by_series(id, caption, columns, results, data, _values_of(data, metrics))


def _difference_table(results: Results, data: str, metrics: Sequence[str], id: str, task: str) -> Table:
    columns = [Column("Condition", is_number=False), *(Column(_in_task(name)) for name in metrics)]

    def row(found: ConditionResults) -> list[Cell]:
        differences = found.on[data].differences
        return [_name(found), *(_difference(name, differences.get(name)) for name in metrics)]

    caption = f"Differences to the unpruned model on {data}, {task}, strict; points where the metric is a share"
    return _by_series(id, caption, columns, results, data, row, has_baseline=False)


def _values_of(data: str, metrics: Sequence[str]) -> Callable[[ConditionResults], list[Cell]]:
    def row(found: ConditionResults) -> list[Cell]:
        known = found.on[data].metrics
        return [_name(found), *(cell(words.value(name, known[name])) if name in known else NOTHING for name in metrics)]

    return row


def _by_series(
    id: str,
    caption: str,
    columns: Sequence[Column],
    results: Results,
    data: str,
    row: Callable[[ConditionResults], list[Cell]],
    *,
    has_baseline: bool = True,
) -> Table:
    """A table of the conditions that were measured on a data set, grouped by their series."""
    groups: dict[str, list[list[Cell]]] = {}
    for found in results.conditions:
        role = found.condition.role
        if data in found.on and (has_baseline or role != "baseline"):
            kind = {"baseline": "unpruned", "index": "through an index"}.get(role, found.condition.series)
            title = f"{kind} (rival)" if role == "rival" else kind
            groups.setdefault(title, []).append(row(found))
    number = list(dict.fromkeys(name for found in results.conditions for name in found.on)).index(data)
    return Table(f"{id}-{number}", caption, columns, [Group(*group) for group in groups.items()])


def _metrics_of(results: Results, data: str) -> list[str]:
    """Every metric of a data set, in the order in which conditions have them."""
    return list(
        dict.fromkeys(name for found in results.conditions if data in found.on for name in found.on[data].metrics)
    )


def _name(found: ConditionResults) -> Cell:
    return Cell(words.code(found.condition.name))


def _difference(metric: str, estimate: Estimate | None) -> Cell:
    """A difference; beside one that may be nothing, the smallest that the sample would have shown."""
    if estimate is None:
        return NOTHING
    text, interval = words.difference(metric, estimate)
    remarks = ["exact"] if estimate.method == "exact" else []
    if estimate.low <= 0 <= estimate.high and estimate.detectable is not None:
        remarks.append(f"visible from {words.amount(metric, estimate.detectable)}")
    return Cell(text, f"{interval}\n{', '.join(remarks)}".strip())


def _query_time(found: ConditionResults) -> Cell:
    if found.query_ms is None:
        return NOTHING
    estimate = found.query_ms
    return Cell(f"{estimate.value:.2f} ms a query", f"{estimate.low:.2f} to {estimate.high:.2f}")


def _in_task(metric: str) -> str:
    """A metric's name in a table of its task."""
    return words.short(metric).removeprefix("image to text ")


def _fidelity_name(name: str) -> str:
    return _FIDELITY.get(name, name.replace("_", " "))
