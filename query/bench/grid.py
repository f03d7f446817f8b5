"""The grid of `bench policies`: a YAML list of series of policies, and the points it expands to."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ConfigError, first_line
from pipeline.model.pruning.policy import (
    UNPRUNED,
    CutPoint,
    PruningPolicy,
    Stages,
    named_policy,
    refuse_taken_name,
    sharpened,
)
from pipeline.settings.load import explain
from pipeline.yaml_file import kind_of, read_yaml


class Series(BaseModel):
    """Points that belong together: named policies, input sizes, or all combinations of scores, depths and keep ratios.

    Each combination of score, depth and keep ratio is a policy with one cut; `options` holds its other fields. Input
    sizes run under the policy `lossless`: the rivals, too, get every saving that costs no recall.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    policies: tuple[str | dict[str, Any], ...] = ()
    image_sizes: tuple[int, ...] = ()
    gmac_ratios: tuple[float, ...] = ()
    scores: tuple[str, ...] = ()
    depths: tuple[float, ...] = ()
    keeps: tuple[float, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to measure."""

    series: str
    name: str
    policy: PruningPolicy | None
    image_size: int | None = None


def read_grid(path: Path) -> list[Point]:
    """Read the points of a grid, a YAML list of `Series`.

    Raises:
        ConfigError: If the grid is invalid; names the file and the field.
    """
    values = read_yaml(path, "grid", "a YAML list of series")
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        found = kind_of(values) if not isinstance(values, list) else "a list of other values"
        raise ConfigError(f"grid {path} must be a list of series, each with `- name: ...`, found {found}")
    try:
        series = [Series(**{str(key): field for key, field in value.items()}) for value in values]
        points = [point for each in series for point in _points(each, path)]
    except ValidationError as error:
        raise ConfigError(explain(error, f"grid {path}", "add it to each series and each policy")) from error
    except TypeError as error:  # a field that is given both by `options` and by the series
        raise ConfigError(f"grid {path}: {first_line(error)}") from error
    if any(each.name == UNPRUNED for each in series):
        raise ConfigError(f"grid {path}: the series {UNPRUNED!r} is the unpruned tower; give the series another name")
    names = [(point.series, point.name) for point in points]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice or not points:
        raise ConfigError(
            f"grid {path}: " + (f"{twice[1]!r} appears twice in series {twice[0]!r}" if twice else "no points")
        )
    return points


def _points(series: Series, path: Path) -> Iterator[Point]:
    for named in series.policies:
        policy = named_policy(named) if isinstance(named, str) else PruningPolicy(**{**series.options, **named})
        if policy and not isinstance(named, str):
            refuse_taken_name(policy, f"grid {path}, series {series.name!r}")
        for each in [sharpened(policy, ratio) for ratio in series.gmac_ratios] or [policy]:
            yield Point(series.name, each.name if each else UNPRUNED, each)
    for size in series.image_sizes:
        yield Point(series.name, f"{size} px", named_policy("lossless"), size)
    for score, depth, keep in itertools.product(series.scores, series.depths, series.keeps):
        schedule = Stages(cuts=(CutPoint(depth=depth, keep=keep),))
        name = f"{score} at {depth:g}, keep {keep:g}"
        yield Point(series.name, name, PruningPolicy(name=name, score=score, schedule=schedule, **series.options))
