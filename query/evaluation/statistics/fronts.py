"""Fronts of speed against loss, and the speed at a given loss with one interval for both. numpy only.

Shapes: C conditions, D bootstrap draws.
"""

import numpy as np

from query.evaluation.results import Estimate
from query.evaluation.statistics.bootstrap import bca


def front(speeds_C: np.ndarray, losses_C: np.ndarray) -> np.ndarray:
    """Places of the conditions that no other beats in both speed and loss, slowest first.

    Of conditions that are equal in both, the first counts.
    """
    order = np.lexsort((np.arange(len(speeds_C)), losses_C, -np.asarray(speeds_C)))
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], np.asarray(losses_C)[order]]))[:-1]
    return order[np.asarray(losses_C)[order] < best_before][::-1]


def speed_at_loss(losses_CD: np.ndarray, speeds_CD: np.ndarray, max_loss: float) -> Estimate | None:
    """Speed of the front at a loss, interpolated between its conditions, with one interval.

    The estimate comes from the mean loss and the median speed of the draws, its interval from the front of each draw.
    So the interval covers the noise of losses and speeds, and that another condition could be the best.

    Args:
        losses_CD: Loss of each condition in each bootstrap sample of the queries; the baseline's is 0.
        speeds_CD: Speed of each condition in each sample of the timings.
        max_loss: The loss to allow, in the unit of the losses.

    Returns:
        The speed, in the unit of the speeds; None if all conditions lose more.
    """
    losses_C1 = losses_CD.mean(axis=1, keepdims=True)
    # the median, because speeds from few rounds have heavy tails
    speeds_C1 = np.exp(np.median(np.log(speeds_CD), axis=1, keepdims=True))
    value = front_speeds(losses_C1, speeds_C1, max_loss)[0]
    if np.isnan(value):
        return None
    samples_D = front_speeds(losses_CD, speeds_CD, max_loss)
    # the best of many noisy conditions is flattered, and more so in each draw: correct for that bias
    low, high = bca(np.array([value]), samples_D[~np.isnan(samples_D), None])
    return Estimate(float(value), min(low.item(), value.item()), max(high.item(), value.item()))


def front_speeds(losses_CD: np.ndarray, speeds_CD: np.ndarray, max_loss: float) -> np.ndarray:
    """Speed of each draw's front at a loss, on a log scale between the two conditions around it: [D], NaN for none."""
    columns, logs_CD = np.arange(losses_CD.shape[1]), np.log(speeds_CD)
    is_allowed_CD = losses_CD <= max_loss
    last_D = np.lexsort((-losses_CD, np.where(is_allowed_CD, logs_CD, -np.inf)), axis=0)[-1]
    is_next_CD = ~is_allowed_CD & (logs_CD > logs_CD[last_D, columns])
    next_D = np.lexsort((-logs_CD, np.where(is_next_CD, losses_CD, np.inf)), axis=0)[0]
    loss_D, log_D = losses_CD[last_D, columns], logs_CD[last_D, columns]
    with np.errstate(invalid="ignore", divide="ignore"):
        part_D = (max_loss - loss_D) / (losses_CD[next_D, columns] - loss_D)
    part_D = np.where(is_next_CD.any(axis=0), part_D, 0.0)
    found_D = np.exp(log_D + part_D * (logs_CD[next_D, columns] - log_D))
    return np.where(is_allowed_CD.any(axis=0), found_D, np.nan)
