"""The policies of a series, each with the name and the key that asks for it."""

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.model.pruning.names import UNPRUNED
from pipeline.model.pruning.policy import (
    CutPoint,
    PruningPolicy,
    Schedule,
    Stages,
    name_of,
    named_policy,
    policy_names,
    refuse_taken_name,
    sharpened,
)
from pipeline.yaml_file import Loc
from query.evaluation.grid.keys import SeriesKeys
from query.evaluation.grid.read import Grid


@dataclass(frozen=True, slots=True)
class Base:
    """A policy with what a condition's name says of it."""

    name: str
    policy: PruningPolicy | None
    loc: Loc
    extra: str = ""
    """The end of the name, after that of an adapter."""


def bases_of(grid: Grid, number: int) -> list[Base]:
    """The policies of a series; without any, `lossless` for image sizes, otherwise the unpruned tower.

    Raises:
        ConfigError: If a policy is wrong, or keys of the series do not go together; names the line.
    """
    series, at = grid.keys.series[number], ("series", number)
    _check_keys(grid, number)
    bases = [*_named(grid, number), *_one_cuts(grid, number)]
    if not bases and series.image_sizes:
        return [Base("", named_policy("lossless"), (*at, "image_sizes"))]
    return seeded(bases or [Base(UNPRUNED, None, at)], grid.keys.seeds)


def seeded(bases: Sequence[Base], seeds: Sequence[int]) -> list[Base]:
    """Each base with the score `random` once for each seed, unless it names its own."""
    found = []
    for base in bases:
        if base.policy is None or base.policy.score != "random" or "seed" in base.policy.model_fields_set:
            found.append(base)
            continue
        for seed in seeds:
            extra = f"{base.extra}, seed {seed}" if len(seeds) > 1 else base.extra
            found.append(replace(base, policy=base.policy.model_copy(update={"seed": seed}), extra=extra))
    return found


def _check_keys(grid: Grid, number: int) -> None:
    """Refuse keys that would have no effect, and lists of one cut that are incomplete."""
    series, at = grid.keys.series[number], ("series", number)
    cut = {name: getattr(series, name) for name in ("scores", "depths", "keeps")}
    missing = [name for name, values in cut.items() if not values]
    if 0 < len(missing) < len(cut):
        given = next(name for name in cut if name not in missing)
        raise grid.error((*at, given), f"scores, depths and keeps go together; add {' and '.join(missing)}")
    if series.gmac_ratios and not series.policies:
        raise grid.error((*at, "gmac_ratios"), "there are no `policies` to sharpen; add them")
    if series.options and missing and not any(isinstance(policy, dict) for policy in series.policies):
        raise grid.error((*at, "options"), "no policy of this series is spelled out; remove `options`")
    if taken := sorted({"name", "score", "schedule"} & set(series.options)) if not missing else []:
        raise grid.error((*at, "options", taken[0]), "policies with one cut have their own; remove it here")
    used = (series.policies, series.scores, series.image_sizes, series.adapters, series.precisions, series.model)
    if not any(used):
        raise grid.error((*at, "name"), "the series compares nothing; give policies, image_sizes or another list")


def _named(grid: Grid, number: int) -> Iterator[Base]:
    series, at = grid.keys.series[number], ("series", number)
    for place, named in enumerate(series.policies):
        loc: Loc = (*at, "policies", place)
        policy = _by_name(grid, named, loc) if isinstance(named, str) else _spelled_out(grid, number, named, loc)
        if not series.gmac_ratios:
            yield Base(name_of(policy), policy, loc)
        for ratio in series.gmac_ratios:
            try:
                sharper = sharpened(policy, ratio)
            except ConfigError as error:
                raise grid.error(loc, str(error)) from error
            yield Base(sharper.name, sharper, loc)


def _by_name(grid: Grid, name: str, loc: Loc) -> PruningPolicy | None:
    is_file = name.lower().endswith((".yaml", ".yml"))
    if not is_file and name not in policy_names():
        near = difflib.get_close_matches(name, policy_names(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise grid.error(loc, f"expected one of {', '.join(policy_names())}, or a FILE.yaml{hint}", name)
    try:
        return named_policy(name)
    except ConfigError as error:
        raise grid.error(loc, str(error)) from error


def _spelled_out(grid: Grid, number: int, values: dict[str, Any], loc: Loc) -> PruningPolicy:
    policy = _policy(grid, {**grid.keys.series[number].options, **values}, loc, number)
    try:
        refuse_taken_name(policy, "the policy")
    except ConfigError as error:
        raise grid.error((*loc, "name"), str(error)) from error
    return policy


def _one_cuts(grid: Grid, number: int) -> Iterator[Base]:
    series = grid.keys.series[number]
    extra = _options_of(series) if sum(bool(other.scores) for other in grid.keys.series) > 1 else ""
    for (place, score), depth, keep in itertools.product(enumerate(series.scores), series.depths, series.keeps):
        name = f"{score} at {depth:g}, keep {keep:g}{extra}"
        schedule = Stages(cuts=(CutPoint(depth=depth, keep=keep),))
        values = {**series.options, "name": name, "score": score, "schedule": schedule}
        loc: Loc = ("series", number, "scores", place)
        yield Base(name, _policy(grid, values, loc, number), loc)


def _options_of(series: SeriesKeys) -> str:
    """What tells one cut from the same cut of another series, for example `, merge, size_weight 0.9`."""
    options = series.options.items()
    return "".join(f", {value}" if isinstance(value, str) else f", {name} {value}" for name, value in options)


def _policy(grid: Grid, values: dict[str, Any], loc: Loc, number: int) -> PruningPolicy:
    try:
        return PruningPolicy(**values)
    except ValidationError as error:
        first = error.errors()[0]
        found = (*loc, *first["loc"])
        options: Loc = ("series", number, "options", *first["loc"])
        if grid.lines.has(options[:4]) and not grid.lines.has(found[: len(loc) + 1]):
            found = options
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            message = "it is missing; add it to the policy, or to the `options` of the series"
        elif first["type"] == "extra_forbidden":
            message = f"unknown key; known: {', '.join(PruningPolicy.model_fields)}"
        elif first["type"].startswith("union_tag"):
            kinds = [repr(one.model_fields["kind"].default) for one in get_args(get_args(Schedule)[0])]
            message = f"`kind` is missing or unknown; expected one of {', '.join(kinds)}"
        elif first["type"] == "model_attributes_type":
            message = "expected `key: value` lines, with `kind`"
        shown = first["input"] if not isinstance(first["input"], dict) and first["type"] != "missing" else None
        raise grid.error(found, f"{message[0].lower()}{message[1:]}", shown) from error
