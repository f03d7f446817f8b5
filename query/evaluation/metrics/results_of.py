"""The second pass: everything that is computed of a sweep, from its raw files alone."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import ConfigError, StoreError
from query.evaluation.grid.keys import GridKeys
from query.evaluation.metrics.decomposition import chains, decomposed_metric, decompositions
from query.evaluation.metrics.fronts import front_of
from query.evaluation.metrics.measured import Measured
from query.evaluation.metrics.mixed import mixed_of
from query.evaluation.metrics.speeds import draws_of, milliseconds, speed_of, timed_with
from query.evaluation.raw.data import DataTables, read_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.heads import head_of
from query.evaluation.raw.images import read_cosines
from query.evaluation.raw.ranks import read_ranks
from query.evaluation.raw.record import read_record
from query.evaluation.raw.timings import Round, read_rounds
from query.evaluation.record import WITH_DISTRACTORS, ConditionRecord, DataRecord, SweepRecord
from query.evaluation.results import ConditionResults, Estimate, OnData, Results, Speed


def results_of(folder: SweepFolder) -> Results:
    """Compute the results of a sweep. Reads only raw files, those of one condition at a time.

    Args:
        folder: The folder of `--out`.

    Returns:
        The results. Conditions that were not timed have no speed.

    Raises:
        ConfigError: If a k is larger than a gallery, or no data set has the metric of the sweep.
        StoreError: If a raw file is missing, damaged, or was measured on something else.
    """
    record = read_record(folder)
    keys = GridKeys.model_validate(record.grid)
    _refuse_missing(folder, record, keys)
    decomposed = decomposed_metric(keys.metric, keys.ks)
    rounds = [timed for timed in read_rounds(folder.timings) if timed.environment_key == record.environment_key]
    of_towers = [one for one in rounds if one.kind == "tower"]
    timed = timed_with(of_towers, record.baseline.key)
    speeds = {
        one.key: speed_of(timed[one.key], one.gmacs, record.baseline.gmacs)
        for one in record.conditions
        if one.key in timed
    }
    speed_draws = draws_of(timed)
    on, fronts, steps, mixed = {one.key: {} for one in record.conditions}, [], [], []
    for data in record.data:
        measured = _measure(folder, record, data, keys, frozenset({keys.metric, decomposed}))
        for key, found in measured.on.items():
            on[key][data.name] = found
        front = front_of(measured, keys.metric, speeds, speed_draws, keys.losses, keys.speeds)
        if front and not data.name.endswith(WITH_DISTRACTORS):
            fronts.append(front)
        if keys.decompose and not _has_distractors_beside(record, data):
            steps += decompositions(record, keys.decompose, data, measured, decomposed)
        if not data.name.endswith(WITH_DISTRACTORS):
            mixed += mixed_of(folder, record, keys.mixed, data, measured)
    if not fronts:
        _refuse_metric(keys.metric, on[record.baseline.key])
    return Results(
        record=record,
        mixed=mixed,
        conditions=[
            replace(
                _condition_results(one, on[one.key], speeds.get(one.key), rounds),
                speedup_over_float=_over_float(record, one, of_towers),
            )
            for one in record.conditions
        ],
        fronts=fronts,
        decompositions=steps,
    )


def _measure(
    folder: SweepFolder, record: SweepRecord, data: DataRecord, keys: GridKeys, kept: frozenset[str]
) -> Measured:
    tables = read_data(folder.data(data.name), data.sha256)
    _refuse_large_ks(keys.ks, tables)
    pairs = {one.key: other for one in record.conditions if (other := record.in_float(one))}
    compared = frozenset([*pairs, *(other.key for other in pairs.values())])
    measured = Measured(tables, keys.ks, kept, compared)
    for one in record.conditions:
        ranks, images = folder.ranks(one.key, data.name), folder.images(one.key, data.name)
        if ranks.exists():
            by_task = read_ranks(ranks, head_of(record, one, data, "ranks"))
            cosines_N = read_cosines(images, head_of(record, one, data, "images")) if images.exists() else None
            measured.add(one.key, by_task, cosines_N)
    for key, other in pairs.items():
        if {key, other.key} <= measured.on.keys():
            head = head_of(record, record.condition(key), data, "images", other)
            measured.compare(key, other.key, read_cosines(folder.to_float(key, data.name), head))
    return measured


def _over_float(record: SweepRecord, one: ConditionRecord, of_towers: Sequence[Round]) -> Estimate | None:
    """The speed-up of a condition in 8 bits over the same one in a float type; None if they share no round."""
    other = record.in_float(one)
    found = timed_with(of_towers, other.key).get(one.key) if other else None
    return found.speedup if found else None


def _condition_results(
    one: ConditionRecord, on: dict[str, OnData], speed: Speed | None, rounds: Sequence[Round]
) -> ConditionResults:
    query_ms = milliseconds([timed for timed in rounds if timed.kind == "query"], one.key)
    return ConditionResults(condition=one, on=on, speed=speed, query_ms=query_ms)


def _has_distractors_beside(record: SweepRecord, data: DataRecord) -> bool:
    return any(other.name == f"{data.name}{WITH_DISTRACTORS}" for other in record.data)


def _refuse_missing(folder: SweepFolder, record: SweepRecord, keys: GridKeys) -> None:
    """Refuse a sweep that is not complete: name the first file, its condition and data set, and what to run."""
    missing = []
    for data in record.data:
        for one in _measured_on(record, data, keys):
            paths = [folder.ranks(one.key, data.name)]
            if one.key != record.baseline.key and one.shares_space_with(record.baseline):
                paths.append(folder.images(one.key, data.name))
            if record.in_float(one) and not data.name.endswith(WITH_DISTRACTORS):
                paths.append(folder.to_float(one.key, data.name))
            missing += [(path, one.name, f"data set {data.name!r}") for path in paths if not path.exists()]
    for one in record.conditions:
        paths = [folder.ranks(one.key, data.name) for data in record.data]
        if one.role == "index" and not any(path.exists() for path in paths):
            missing.append((paths[-1], one.name, "any data set"))
    if missing:
        path, name, where = missing[0]
        more = f" (and {len(missing) - 1} more files are)" if len(missing) > 1 else ""
        commands = [command for command in record.commands if "--report-only" not in command]
        again = f"`{commands[-1]}`" if commands else "the sweep"
        raise StoreError(
            f"{path} is missing{more}: condition {name!r} was not measured on {where}; run {again} again, which "
            "measures what is missing"
        )


def _measured_on(record: SweepRecord, data: DataRecord, keys: GridKeys) -> list[ConditionRecord]:
    """The conditions that must be measured on a data set; galleries with distractors are for decompositions only."""
    towers = [one for one in record.conditions if one.role != "index"]
    if not data.name.endswith(WITH_DISTRACTORS):
        return towers
    return list({one.key: one for chain in chains(record, keys.decompose) for one in chain}.values())


def _refuse_large_ks(ks: Sequence[int], tables: DataTables) -> None:
    for place, k in enumerate(ks):
        if k > len(tables.keys):
            raise ConfigError(
                f"ks.{place} = {k}: the gallery of {tables.name!r} has only {len(tables.keys)} images; give a smaller k"
            )


def _refuse_metric(metric: str, on: dict[str, OnData]) -> None:
    known = list(dict.fromkeys(name for found in on.values() for name in found.metrics))
    raise ConfigError(f"metric = {metric!r}: no data set of this sweep has it; expected one of {', '.join(known)}")
