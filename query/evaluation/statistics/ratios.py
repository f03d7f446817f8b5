"""Speeds and speed ratios from rounds of timings. numpy only.

Shapes: C conditions, R rounds, D draws.
"""

import math
from statistics import NormalDist

import numpy as np

from query.evaluation.results import Estimate

_Z95 = NormalDist().inv_cdf(0.975)
_LARGEST_LOG = 100.0
"""Of samples: with two rounds, t has such heavy tails that some would be infinite."""
DRIFT = 0.015
"""Standard deviation of log-ratios between runs that the rounds of one run cannot show. `tests/drills/timing_repeat.py`
measured 0.011 to 0.023. Where rounds differ little, two runs agree in 88 to 91 % of cases without it."""


def speedup(seconds_R: np.ndarray, baseline_R: np.ndarray) -> Estimate:
    """How many times faster a condition is than the baseline, each round a pair.

    The interval holds for other runs, too: it is that of t over the rounds, widened by the drift between runs. The
    baseline against itself is exactly 1.

    Args:
        seconds_R: Seconds of the condition in each round.
        baseline_R: Seconds of the baseline for the same work, in the same rounds.
    """
    drift = 0.0 if np.array_equal(seconds_R, baseline_R) else DRIFT
    return _of_logs(np.log(baseline_R) - np.log(seconds_R), drift)


def rate(seconds_R: np.ndarray, num_items: int) -> Estimate:
    """Items per second, over rounds of `num_items` each. Under another load of the machine, it may be another."""
    return _of_logs(math.log(num_items) - np.log(seconds_R), 0.0)


def quotient(one: Estimate, other: Estimate) -> Estimate:
    """Ratio of two speeds or speed-ups of different runs, with the interval of the two together.

    The half-widths of their logs add up as squares (Zou and Donner's method of variance estimates recovery).
    """
    logs = [[math.log(end) for end in (estimate.low, estimate.value, estimate.high)] for estimate in (one, other)]
    (low, value, high), (other_low, other_value, other_high) = logs
    ratio = value - other_value
    below, above = math.hypot(value - low, other_high - other_value), math.hypot(high - value, other_value - other_low)
    return Estimate(math.exp(ratio), math.exp(ratio - below), math.exp(ratio + above), one.method)


def speedup_draws(seconds_CR: np.ndarray, baseline_R: np.ndarray, num: int = 2000, seed: int = 0) -> np.ndarray:
    """Samples of the speed-ups of conditions that were timed in the same rounds: [C, num].

    They are spread as the intervals of `speedup`, and share what the conditions have in common: their baseline, whose
    own samples are all 1.
    """
    logs_CR = np.log(baseline_R) - np.log(seconds_CR)
    num_rounds, rng = logs_CR.shape[1], np.random.default_rng(seed)
    mean_C1 = logs_CR.mean(axis=1, keepdims=True)
    samples_CD = mean_C1 + rng.normal(0, DRIFT, (len(logs_CR), num)) * logs_CR.any(axis=1, keepdims=True)
    if num_rounds > 1:
        weights_RD = rng.normal(size=(num_rounds, num)) / math.sqrt(num_rounds * (num_rounds - 1))
        scale_D = np.sqrt(rng.chisquare(num_rounds - 1, num) / (num_rounds - 1))
        samples_CD += (logs_CR - mean_C1) @ weights_RD / scale_D
    return np.exp(np.clip(samples_CD, -_LARGEST_LOG, _LARGEST_LOG))


def t_quantile(degrees: int, share: float = 0.975) -> float:
    """Quantile of Student's t for whole degrees of freedom, above the median."""
    low, high = 0.0, 1e4
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_share(middle, degrees) < share else (low, middle)
    return high


def _of_logs(logs_R: np.ndarray, drift: float) -> Estimate:
    logs_R = logs_R[np.isfinite(logs_R)]
    if len(logs_R) < 2:
        value = math.exp(logs_R[0]) if len(logs_R) else math.nan
        return Estimate(value, math.nan, math.nan, "none")
    mean, error = float(logs_R.mean()), float(logs_R.std(ddof=1)) / math.sqrt(len(logs_R))
    reach = math.hypot(t_quantile(len(logs_R) - 1) * error, _Z95 * drift)
    return Estimate(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), "t")


def _t_share(t: float, degrees: int) -> float:
    """Share of Student's t below t (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, squared = math.sin(angle), math.cos(angle) ** 2
    if degrees % 2:
        term, total = math.cos(angle), 0.0
        for power in range(1, degrees - 1, 2):
            total += term
            term *= squared * (power + 1) / (power + 2)
        inside = 2 / math.pi * (angle + sine * total)
    else:
        term, total = 1.0, 0.0
        for power in range(0, degrees, 2):
            total += term
            term *= squared * (power + 1) / (power + 2)
        inside = sine * total
    return 0.5 + inside / 2
