"""A sweep compared with an earlier one, so that a new version of torch, or of clipsieve, can be judged.

Conditions and data sets are matched by name. Recall is compared query by query, from the raw ranks of both. Speed is
compared by the ratio of the two speed-ups, each of which was measured within its own rounds.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from query.evaluation.metrics.measured import per_query, tasks_of
from query.evaluation.metrics.speeds import Timed, timed_with
from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.data import read_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.heads import head_of
from query.evaluation.raw.ranks import read_ranks
from query.evaluation.raw.record import read_record
from query.evaluation.raw.timings import read_rounds
from query.evaluation.record import ConditionRecord, DataRecord, SweepRecord, changes_of
from query.evaluation.results import Estimate, Results
from query.evaluation.statistics.ratios import quotient

_MOST_NAMES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How a sweep differs from an earlier one."""

    root: Path
    """The `--out` of the earlier one."""
    differences: dict[tuple[str, str], dict[str, Estimate]]
    """New minus earlier, metric by metric, by key of the new condition and name of the data set."""
    speed_ratios: dict[str, Estimate]
    """New speed-up over the earlier one, by key of the new condition."""
    notes: list[str]
    """What could not be compared, and what else has changed."""


@dataclass(frozen=True, slots=True)
class _Sweep:
    folder: SweepFolder
    record: SweepRecord

    def data(self, name: str) -> DataRecord | None:
        return next((found for found in self.record.data if found.name == name), None)

    def answers(self, condition: ConditionRecord, data: DataRecord) -> dict[str, Answers] | None:
        """By task; None where the condition was not measured on the data set."""
        path = self.folder.ranks(condition.key, data.name)
        return read_ranks(path, head_of(self.record, condition, data, "ranks")) if path.exists() else None

    def timed(self) -> dict[str, Timed]:
        rounds = [one for one in read_rounds(self.folder.timings) if one.environment_key == self.record.environment_key]
        return timed_with([one for one in rounds if one.kind == "tower"], self.record.baseline.key)


def open_earlier(root: Path, data: Collection[DataRecord]) -> SweepRecord:
    """The record of an earlier sweep that can be compared with. Cheap, so that a wrong one is refused before any work.

    Args:
        root: Its `--out`.
        data: The data sets of the new sweep.

    Raises:
        StoreError: If it is no sweep, or of another schema version.
        ConfigError: If it has none of the data sets, or another split or other images of one.
    """
    record = read_record(SweepFolder(root))
    earlier = {found.name: found for found in record.data}
    for found in data:
        if found.name in earlier:
            _refuse_other(root, earlier[found.name], found)
    if not any(found.name in earlier for found in data):
        raise ConfigError(
            f"--baseline {root} has none of the data sets of this sweep ({listed(one.name for one in data)}), only "
            f"{listed(earlier)}; they are matched by name"
        )
    return record


def _refuse_other(root: Path, there: DataRecord, here: DataRecord) -> None:
    place = f"--baseline {root}: its data set {here.name!r}"
    if there.sha256 != here.sha256:
        raise ConfigError(
            f"{place} is another split: sha256 {there.sha256[:12]}, here {here.sha256[:12]}; compare sweeps of the "
            "same images and queries"
        )
    if there.images_sha256 != here.images_sha256:
        raise ConfigError(f"{place} has the same names, but other images; compare sweeps of the same files")


def compare(results: Results, folder: SweepFolder, root: Path, metrics: Collection[str]) -> Changes:
    """Compare a sweep with an earlier one.

    Args:
        results: The new results.
        folder: The new sweep, with its raw files.
        root: The `--out` of the earlier one.
        metrics: Names of the metrics to compare.

    Raises:
        StoreError: If a raw file cannot be read.
        ConfigError: If the earlier sweep has another split, or no condition of this one.
    """
    new = _Sweep(folder, results.record)
    old = _Sweep(SweepFolder(root), open_earlier(root, results.record.data))
    by_name = {condition.name: condition for condition in old.record.conditions}
    pairs = {one.key: by_name[one.name] for one in new.record.conditions if one.name in by_name}
    if not pairs:
        raise ConfigError(
            f"--baseline {root} has no condition of this sweep, only {listed(by_name)}; they are matched by name"
        )
    notes = _notes(root, new.record, old.record)
    if new.record.grid["epsilon"] != old.record.grid["epsilon"]:
        metrics = [name for name in metrics if not name.endswith("(epsilon)")]
        notes.append("the two have different `epsilon`, so metrics with (epsilon) are not compared")
    differences = {}
    for data in new.record.data:
        if old.data(data.name):
            differences |= _differences(new, old, data, pairs, metrics, notes)
    ratios, timed = {}, old.timed()
    for key, other in pairs.items():
        speed = results.of(key).speed
        if speed and other.key in timed and key != new.record.baseline.key:
            ratios[key] = quotient(speed.speedup, timed[other.key].speedup)
    return Changes(root=root, differences=differences, speed_ratios=ratios, notes=notes)


def _differences(
    new: _Sweep,
    old: _Sweep,
    data: DataRecord,
    pairs: dict[str, ConditionRecord],
    metrics: Collection[str],
    notes: list[str],
) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Differences on one data set. A condition that the earlier sweep did not measure on it is noted."""
    missing = []
    tables = read_data(new.folder.data(data.name), data.sha256)
    found, tasks, ks = {}, tasks_of(tables), new.record.grid["ks"]
    for key, other in pairs.items():
        after = new.answers(new.record.condition(key), data)
        before = old.answers(other, old.data(data.name))
        if after and not before:
            missing.append(other.name)
        if not after or not before:
            continue
        of_all = found[key, data.name] = {}
        for task in [task for task in after if task in before]:
            values = [
                {
                    name: one
                    for name, one in per_query(tables, task, tasks[task].right, answers[task], ks).items()
                    if name in metrics
                }
                for answers in (after, before)
            ]
            if values[0]:
                of_all |= tasks[task].differences(*values)
    if missing:
        notes.append(
            f"{old.folder.root} has not measured {_counted(len(missing), 'condition')} of this sweep on {data.name!r}, "
            f"so not compared: {listed(missing)}"
        )
    return found


def _notes(root: Path, new: SweepRecord, old: SweepRecord) -> list[str]:
    """What one of the two lacks, counted, and what is not as it was."""
    notes = []
    for what in ("condition", "data set"):
        here, there = (
            [one.name for one in (record.conditions if what == "condition" else record.data)] for record in (new, old)
        )
        for first, second, names, others in ((root, "this sweep", here, there), ("this sweep", root, there, here)):
            missing = [name for name in names if name not in others]
            if missing:
                counted = _counted(len(missing), what)
                notes.append(f"{first} lacks {counted} of {second}, so not compared: {listed(missing)}")
    changed = changes_of(old.environment, new.environment)
    return notes + ([f"changed since {root}: {changed}"] if changed else [])


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"


def listed(names: Iterable[str]) -> str:
    """Names for a message: the first few, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(repr, names[:_MOST_NAMES])) + more
