"""Which conditions no other beats, and which to choose: for a loss that one is ready to take, or a speed one needs.

Shapes: C conditions that were timed and measured, D draws.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from query.evaluation.metrics.measured import Measured, task_of
from query.evaluation.results import FrontResults, Speed
from query.evaluation.statistics.fronts import front, speed_at_loss

_POINT = 0.01
_ROUNDING = 1e-9


def front_of(
    measured: Measured,
    metric: str,
    speeds: Mapping[str, Speed],
    speed_draws: Mapping[str, np.ndarray],
    losses: Sequence[float],
    needed_speeds: Sequence[float],
) -> FrontResults | None:
    """The front of a data set, and what it recommends. The baseline is one of the conditions.

    Args:
        measured: The data set.
        metric: A mean, such as recall: more is better.
        speeds: Of each condition that was timed, by key.
        speed_draws: Samples of their speed-ups [D].
        losses: Points of the metric that one may be ready to lose.
        needed_speeds: Images per second that one may need.

    Returns:
        None if the data set does not have this metric.
    """
    values = measured.values.get(metric)
    if values is None:
        return None
    keys = [key for key in values if key in speeds]
    lost = {key: -measured.on[key].differences[metric].value if measured.on[key].differences else 0.0 for key in keys}
    # at worst, by the whole interval
    at_worst = {key: -measured.on[key].differences[metric].low if measured.on[key].differences else 0.0 for key in keys}
    fastest_first = sorted(keys, key=lambda key: -speeds[key].speedup.value)
    within = {points: [key for key in fastest_first if lost[key] <= points * _POINT + _ROUNDING] for points in losses}
    surely = {
        points: [key for key in found if at_worst[key] <= points * _POINT + _ROUNDING]
        for points, found in within.items()
    }
    places = front(np.array([speeds[key].speedup.value for key in keys]), np.array([lost[key] for key in keys]))
    losses_CD = _losses(measured, metric, keys)
    speeds_CD = np.stack([speed_draws[key] for key in keys]) if keys else np.empty((0, 0))
    return FrontResults(
        data=measured.tables.name,
        metric=metric,
        keys=[keys[place] for place in places],
        speed_at_loss={
            str(points): speed_at_loss(losses_CD, speeds_CD, points * _POINT) if keys else None for points in losses
        },
        recommended_for_loss={str(points): next(iter(found), None) for points, found in within.items()},
        surely_within_loss={str(points): found for points, found in surely.items()},
        recommended_for_speed={str(needed): _best(keys, speeds, lost, needed) for needed in needed_speeds},
    )


def _losses(measured: Measured, metric: str, keys: Sequence[str]) -> np.ndarray:
    """Loss of each condition in each draw of the queries, [C, D]."""
    values, draws = measured.values[metric], measured.tasks[task_of(metric)].draws
    baseline_Q = next(iter(values.values())).values_Q
    if not keys:
        return np.empty((0, draws.num))
    return draws.means(np.stack([baseline_Q - values[key].values_Q for key in keys], axis=1)).T


def _best(keys: Sequence[str], speeds: Mapping[str, Speed], lost: Mapping[str, float], needed: float) -> str | None:
    """The condition that loses least of those that are fast enough; of equals, the fastest."""
    enough = [key for key in keys if speeds[key].images_per_second.value >= needed]
    return min(enough, key=lambda key: (lost[key], -speeds[key].speedup.value), default=None)
