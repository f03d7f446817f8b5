"""Bounds on the results: is a condition good enough, and as good as it was?

A gate is OK if the whole 95 % interval is inside its bound, FAIL if all of it is outside, and DRIFT if it is on both
sides: then the sample cannot tell.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import GateFailed
from pipeline.yaml_file import read_yaml_lines
from query.evaluation.earlier import Changes, compare, listed
from query.evaluation.grid.keys import GridKeys
from query.evaluation.grid.names import SPEEDS
from query.evaluation.grid.read import Grid
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.record import read_record
from query.evaluation.report import words
from query.evaluation.results import ConditionResults, Estimate, GateRow, Gates, Results

_KINDS = ("max_loss", "min", "max")


def recorded_grid(folder: SweepFolder) -> Grid:
    """The grid that a sweep was made with, from its record.

    Raises:
        StoreError: If there is no record that can be read.
    """
    keys = GridKeys.model_validate(read_record(folder).grid)
    _, lines = read_yaml_lines(folder.record, "record", "the --out of a sweep")  # JSON is YAML
    return Grid(keys, folder.record, lines.within("grid"))


def refuse_unanswerable(grid: Grid, baseline: Path | None) -> None:
    """Refuse, before anything is measured, bounds that no result could answer.

    Raises:
        ConfigError: If there are no bounds, or a loss of speed has nothing to be against. Names key and line.
        StoreError: If the baseline is no sweep, or of another schema version.
    """
    if not grid.keys.require:
        raise grid.error(("require",), "it is missing, so there is nothing to check; add it, or leave out the gates")
    if baseline is not None:
        read_record(SweepFolder(baseline))
        return
    for metric in SPEEDS:
        if metric in grid.keys.require and grid.keys.require[metric].max_loss is not None:
            problem = "a loss of speed is against an earlier sweep; add --baseline DIR, or give `min` instead"
            raise grid.error(("require", metric, "max_loss"), problem)


def check(results: Results, grid: Grid, folder: SweepFolder, baseline: Path | None = None) -> Gates:
    """Check every bound of `require` on every condition that it holds for.

    Args:
        results: The results.
        grid: The grid, with `require` and `gates_of`.
        folder: The sweep, with its raw files.
        baseline: The `--out` of an earlier sweep. Then losses are against it instead of the unpruned model, whose own
            losses are checked, too.

    Raises:
        ConfigError: If a metric was not measured on any data set, a loss of speed has nothing to be against, or the
            earlier sweep cannot be compared with. Names key and line.
        StoreError: If a raw file cannot be read.
    """
    refuse_unanswerable(grid, baseline)
    _refuse_unmeasured(results, grid)
    changes = compare(results, folder, baseline, list(grid.keys.require)) if baseline else None
    checker = _Checker(results, grid, changes)
    notes, rows = list(changes.notes if changes else []), []
    for metric, bounds in grid.keys.require.items():
        for kind in [kind for kind in _KINDS if getattr(bounds, kind) is not None]:
            lacking = []
            for one in checker.conditions(metric, kind):
                found = list(checker.rows(one, metric, kind, getattr(bounds, kind)))
                rows += found
                lacking += [one.condition.name] * (not found)
            if lacking:
                notes.append(_on_lacking(metric, kind, lacking))
    return Gates(rows=rows, notes=notes, baseline=str(baseline) if baseline else None)


def refuse_failed(gates: Gates, strict: bool = False) -> None:
    """To be called when everything is written.

    Args:
        gates: The gates.
        strict: Whether DRIFT is a failure, too.

    Raises:
        GateFailed: If a gate failed. Names the first one, with its key and line.
    """
    refused = [row for status in ("FAIL", "DRIFT")[: 1 + strict] for row in gates.rows if row.status == status]
    if refused:
        row = refused[0]
        where = f"{row.condition!r} on {row.data}" if row.data else repr(row.condition)
        raise GateFailed(
            f"{row.place}: {row.status} for {where}: {row.found}, expected {row.bound}; {len(refused)} of "
            f"{len(gates.rows)} gates failed, results.json has them all"
        )


def _refuse_unmeasured(results: Results, grid: Grid) -> None:
    measured = dict.fromkeys(name for one in results.conditions for on in one.on.values() for name in on.metrics)
    for metric in grid.keys.require:
        if metric not in measured and metric not in SPEEDS:
            problem = f"no data set of this sweep has it; expected one of {', '.join([*measured, *SPEEDS])}"
            raise grid.error(("require", metric), problem)


@dataclass(frozen=True)
class _Checker:
    results: Results
    grid: Grid
    changes: Changes | None

    def conditions(self, metric: str, kind: str) -> list[ConditionResults]:
        """Those that a bound holds for; the unpruned model only where it can have lost something."""
        roles = {"condition", "index"} | ({"rival"} if self.grid.keys.gates_of == "all" else set())
        if self.changes and kind == "max_loss" and metric not in SPEEDS:
            roles.add("baseline")
        return [one for one in self.results.conditions if one.condition.role in roles]

    def rows(self, one: ConditionResults, metric: str, kind: str, limit: float) -> Iterator[GateRow]:
        """The rows of one bound on one condition; none where it was not measured."""
        loc = ("require", metric, kind)
        for data, estimate in self._numbers(one, metric, is_loss=kind == "max_loss"):
            yield GateRow(
                status=_status(estimate, limit, is_upper=kind != "min"),
                condition=one.condition.name,
                key=one.condition.key,
                data=data,
                metric=metric,
                kind=kind,
                limit=limit,
                estimate=estimate,
                bound=self._bound(metric, kind, limit),
                found=_shown(metric, kind, estimate),
                place=f"{self.grid.path}, line {self.grid.line_of(loc)}: {'.'.join(loc)}",
            )

    def _bound(self, metric: str, kind: str, limit: float) -> str:
        shown = _shown(metric, kind, Estimate(limit, limit, limit, "none"))
        if kind != "max_loss":
            return f"at {'least' if kind == 'min' else 'most'} {shown}"
        return f"a loss of at most {shown} against {self.changes.root if self.changes else 'the unpruned model'}"

    def _numbers(self, one: ConditionResults, metric: str, is_loss: bool) -> Iterator[tuple[str, Estimate]]:
        """What is measured, by the name of the data set."""
        if metric in SPEEDS:
            if is_loss and one.condition.key in self.changes.speed_ratios:
                kept = self.changes.speed_ratios[one.condition.key]
                yield "", Estimate(1 - kept.value, 1 - kept.high, 1 - kept.low, kept.method)
            elif not is_loss and one.speed:
                yield "", getattr(one.speed, metric)
            return
        for data, on in one.on.items():
            found = on.metrics
            if is_loss:
                found = self.changes.differences.get((one.condition.key, data), {}) if self.changes else on.differences
            if metric in found:
                yield data, (_loss(metric, found[metric]) if is_loss else found[metric])


def _shown(metric: str, kind: str, estimate: Estimate) -> str:
    """A number and its interval, for people."""
    unit = ""
    if metric in SPEEDS and kind == "max_loss":  # a share, shown as shares are
        (value, interval), unit = words.value("acc1", estimate), " %"
    elif metric in SPEEDS:
        value, interval = (words.times if metric == "speedup" else words.rate)(estimate)
    else:
        value, interval = words.value(metric, estimate)
        unit = (" points" if kind == "max_loss" else " %") if words.is_share(metric) else ""
    return f"{value}{unit} ({interval})" if interval else f"{value}{unit}"


def _loss(metric: str, difference: Estimate) -> Estimate:
    """How much worse: of ranks, higher is worse."""
    if metric.endswith("_median_rank"):
        return difference
    value, low, high = 0 - difference.value, 0 - difference.high, 0 - difference.low  # without a minus at 0
    return Estimate(value, low, high, difference.method, difference.detectable)


def _status(estimate: Estimate, limit: float, is_upper: bool) -> str:
    # without an interval, both comparisons are false
    is_inside = estimate.high <= limit if is_upper else estimate.low >= limit
    is_outside = estimate.low > limit if is_upper else estimate.high < limit
    return "OK" if is_inside else "FAIL" if is_outside else "DRIFT"


def _on_lacking(metric: str, kind: str, names: list[str]) -> str:
    counted = f"{len(names)} condition{'s' * (len(names) > 1)}"
    return f"{metric}: {kind} is not checked on {counted} without it: {listed(names)}"
