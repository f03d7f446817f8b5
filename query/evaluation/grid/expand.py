"""From a grid to its conditions: the baseline, every combination of each series, and the rivals."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.model.pruning.names import ADAPTED, UNPRUNED, plain_name
from pipeline.model.spec import EMBEDDED, LOCAL_DIR, ModelSource
from pipeline.yaml_file import Loc
from query.evaluation.grid.bases import Base, bases_of, seeded
from query.evaluation.grid.condition import Condition
from query.evaluation.grid.keys import GridKeys, ModelKeys
from query.evaluation.grid.names import check_names
from query.evaluation.grid.read import Grid
from query.evaluation.grid.rivals import SERIES as RIVAL_SERIES
from query.evaluation.grid.rivals import rivals


def expand(grid: Grid) -> list[Condition]:
    """The conditions of a grid, the baseline first, then the series in order, then the rivals.

    A rival, or an unpruned tower of a series, that equals another condition is left out: it is measured once. Other
    keys of the grid refer to conditions by name; those names are checked here.

    Raises:
        ConfigError: If a path leads nowhere, a series makes no condition, a policy or adapter is wrong, two conditions
            share a name or all settings, or a key refers to a condition or a metric that does not exist; names the
            lines.
    """
    baseline = Condition(
        name=UNPRUNED,
        series=UNPRUNED,
        role="baseline",
        **_sources(grid, grid.keys.model, None, None),
        policy=None,
        precision=grid.keys.precision,
        loc=("model",),
    )
    conditions = [baseline]
    _check_series(grid)
    _check_paths(grid)
    for number in range(len(grid.keys.series)):
        for condition in _of_series(grid, number):
            if condition.settings != baseline.settings:
                _refuse_repeated(grid, conditions, condition)
                conditions.append(condition)
    for condition in _rivals(grid):
        if all(condition.settings != other.settings for other in conditions):
            _refuse_repeated(grid, conditions, condition)
            conditions.append(condition)
    _refuse_unused_calibration(grid, conditions)
    check_names(grid, conditions)
    return conditions


def without_repeats(
    grid: Grid, conditions: list[Condition], fingerprints: dict[str, str]
) -> tuple[list[Condition], list[str]]:
    """Drop conditions whose encoder turns out to be that of another: `auto` may stand for a precision that is named.

    Args:
        grid: The grid.
        conditions: As `expand` returned them.
        fingerprints: Fingerprint of the encoder by condition key.

    Returns:
        The conditions that remain, and a warning for each dropped one.

    Raises:
        ConfigError: If two conditions of the series have one fingerprint; names both, with their lines.
    """
    first: dict[str, Condition] = {}
    warnings = []
    for condition in conditions:
        other = first.setdefault(fingerprints[condition.key], condition)
        if other is condition:
            continue
        if other.role == condition.role == "condition" and other.precision == condition.precision:
            raise _same_settings(grid, other, condition)
        if condition.name in _named(grid.keys):
            raise grid.error(
                condition.loc,
                f"{condition.name!r} embeds exactly as {other.name!r} does here, and is not measured twice; "
                f"refer to {other.name!r}, or set `precision`",
            )
        warnings.append(f"{condition.name!r} is not measured, because it embeds exactly as {other.name!r} does")
    return list(first.values()), warnings


def without_pruned_rivals(conditions: list[Condition]) -> tuple[list[Condition], list[str]]:
    """The conditions for a tower that cannot be pruned: without rivals that prune it.

    Down-scaled input stays, without the policy `lossless`. Conditions of series stay as they are: whoever asks for a
    policy on such a tower gets the error that says so.

    Returns:
        The conditions that remain, and a warning that counts the dropped ones.
    """
    kept, dropped = [], []
    for condition in conditions:
        if condition.loc[:1] != ("rivals",) or condition.policy is None:
            kept.append(condition)
        elif condition.policy.schedule is None:
            kept.append(replace(condition, policy=None))
        else:
            dropped.append(condition.name)
    model = conditions[0].source.model
    warning = f"the tower of {model} cannot be pruned, so {len(dropped)} rivals are left out: {', '.join(dropped)}"
    return kept, [warning] if dropped else []


def _named(keys: GridKeys) -> set[str]:
    """Names of conditions that other keys refer to."""
    return {*itertools.chain(*keys.mixed), *(keys.decompose.conditions if keys.decompose else ())}


def _of_series(grid: Grid, number: int) -> Iterator[Condition]:
    """Every combination of the lists of a series."""
    series, at = grid.keys.series[number], ("series", number)
    is_other = series.model is not None and series.model != grid.keys.model
    model = series.model or grid.keys.model
    prefix = _short(model.model) if is_other else ""
    adapters = [_adapter(grid, text, (*at, "adapters", place)) for place, text in enumerate(series.adapters)] or [None]
    sizes, precisions = list(enumerate(series.image_sizes)) or [(0, None)], series.precisions or (None,)
    every = itertools.product(bases_of(grid, number), sizes, precisions, adapters)
    for base, (place, size), precision, adapter in every:
        yield Condition(
            name=_name_of(base, prefix, size, precision, _ending(grid.keys, adapter)),
            series=series.name,
            role="rival" if is_other else "condition",
            **_sources(grid, model, size, adapter),
            policy=base.policy,
            precision=precision or grid.keys.precision,
            loc=base.loc if base.name else (*at, "image_sizes", place),
        )


def _rivals(grid: Grid) -> Iterator[Condition]:
    for rival in rivals(grid.keys):
        for base in seeded([Base(rival.name, rival.policy, rival.loc)], grid.keys.seeds):
            yield Condition(
                name=f"{base.name}{base.extra}",
                series=rival.series,
                role="rival",
                **_sources(grid, grid.keys.model, rival.image_size, None),
                policy=base.policy,
                precision=grid.keys.precision,
                loc=base.loc,
            )


def _sources(grid: Grid, model: ModelKeys, image_size: int | None, adapter: str | None) -> dict[str, ModelSource]:
    source = ModelSource(**model.model_dump(), image_size=image_size, adapter=adapter)
    texts = {name: grid.as_spelled(getattr(source, name)) for name in ("model", "pretrained", "adapter")}
    return {"source": source.absolute(), "spelled": source.model_copy(update=texts)}


def _adapter(grid: Grid, text: str, loc: Loc) -> str | None:
    if text == UNPRUNED:
        return None
    if text != EMBEDDED and not Path(text).expanduser().is_dir():
        raise grid.error(loc, "expected the directory of an adapter, `scenes`, or `none`; correct it", text)
    return text


def _name_of(base: Base, prefix: str, size: int | None, precision: str | None, ending: str) -> str:
    """For example `balanced`, `fast+adapter, bf16`, `160 px`, `ViT-B-32`, `ViT-B-32, balanced`."""
    name = base.name or f"{size} px"
    if prefix:
        name = prefix if name == UNPRUNED else f"{prefix}, {name}"
    extra = base.extra + (f", {size} px" if size and base.name else "") + (f", {precision}" if precision else "")
    return f"{name}{ending}{extra}"


def _ending(keys: GridKeys, adapter: str | None) -> str:
    """The end of an adapted condition's name; it says which adapter only if the grid has several."""
    if adapter is None:
        return ""
    adapters = {text for series in keys.series for text in series.adapters if text != UNPRUNED}
    return ADAPTED if len(adapters) == 1 else f"+{_short(adapter)}"


def _short(location: str) -> str:
    """The last part of a name that may be a path."""
    return location.removeprefix(LOCAL_DIR).rstrip("/").rpartition("/")[2]


def _check_paths(grid: Grid) -> None:
    """Refuse paths that lead nowhere: before hours of work."""
    sources = [(("data", number), data) for number, data in enumerate(grid.keys.data)]
    for at, keys in [*sources, (("calibration",), grid.keys.calibration)]:
        for key, value in keys:
            values = enumerate(value) if isinstance(value, tuple) else [(None, value)]
            for place, path in values:
                loc: Loc = (*at, key) if place is None else (*at, key, place)
                if isinstance(path, Path) and not path.exists():
                    raise grid.error(loc, "there is nothing at this path; correct it", str(path))


def _check_series(grid: Grid) -> None:
    names: dict[str, int] = {}
    for number, series in enumerate(grid.keys.series):
        name, loc = plain_name(series.name), ("series", number, "name")
        if name == UNPRUNED or name in RIVAL_SERIES:
            what = "the unpruned tower" if name == UNPRUNED else "rivals that every sweep measures"
            raise grid.error(loc, f"this is the name of {what}; rename the series", series.name)
        if name in names:
            raise grid.error(loc, f"line {names[name]} has a series of this name; rename one", series.name)
        names[name] = grid.line_of(loc)


def _refuse_unused_calibration(grid: Grid, conditions: list[Condition]) -> None:
    if grid.keys.calibration.model_fields_set and not {"int8", "8bit"} & {one.precision for one in conditions}:
        raise grid.error(("calibration",), "no condition is in int8; add int8 to `precisions`, or remove this key")


def _refuse_repeated(grid: Grid, conditions: list[Condition], condition: Condition) -> None:
    for other in conditions:
        if other.settings == condition.settings:
            raise _same_settings(grid, other, condition)
        if plain_name(other.name) == plain_name(condition.name):
            at = _described(grid, other)
            raise grid.error(condition.loc, f"{condition.name!r} is also the name of {at}; rename one of the two")


def _same_settings(grid: Grid, other: Condition, condition: Condition) -> ConfigError:
    at = f"that of {other.name!r}, {_described(grid, other)}"
    return grid.error(condition.loc, f"the encoder of {condition.name!r} is the same as {at}; remove one of the two")


def _described(grid: Grid, condition: Condition) -> str:
    """Where another condition comes from."""
    if condition.role == "baseline":
        return "the baseline"
    line = f"line {grid.line_of(condition.loc)}"
    return f"a rival ({line})" if condition.loc[:1] == ("rivals",) else f"a condition of {condition.series!r} ({line})"
