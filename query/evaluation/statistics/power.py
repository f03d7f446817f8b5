"""What loss a sample could have shown. numpy only.

Shapes: C clusters, M differing clusters, R repetitions.
"""

from functools import lru_cache
from statistics import NormalDist

import numpy as np

from query.evaluation.statistics.exact import FEW, is_below_zero

_Z95, _Z80 = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(0.8)
_POWER = 0.8
_REPETITIONS = 300
_MOST = 60  # further losses; more would need no exact interval


def detectable_loss(differences_C: np.ndarray, largest: float = 1.0) -> float | None:
    """The smallest loss whose interval would have excluded 0 in 80 % of repetitions.

    Repetitions have as many differing clusters as the sample, half of them for the better, and then further clusters
    that lose as much as those differ. If none differs, clusters lose all they can: such a loss must be largest to show.

    Args:
        differences_C: Difference of each cluster, divided by the mean size of a cluster.
        largest: The largest difference that a cluster can have.

    Returns:
        The mean loss, a fraction; None if there are too few clusters to show any.
    """
    differing_M = np.abs(differences_C[np.abs(differences_C) > 1e-9])
    if len(differing_M) < FEW:
        return _by_simulation(tuple(np.sort(differing_M.round(6)).tolist()), len(differences_C), largest)
    # the loss that equals its own standard error times 2.8; the lost clusters add to the variance
    usual = (differing_M**2).sum() / differing_M.sum()
    scale = (_Z95 + _Z80) ** 2 / len(differences_C)
    return float((scale * usual + np.sqrt((scale * usual) ** 2 + 4 * scale * np.var(differences_C))) / 2)


@lru_cache(maxsize=4096)
def _by_simulation(differing: tuple[float, ...], num_clusters: int, largest: float) -> float | None:
    rng = np.random.default_rng(0)
    sizes = np.array(differing or (largest,))
    sizes_MR = rng.choice(sizes, (FEW + _MOST, _REPETITIONS))
    signs_MR = rng.choice([-1.0, 1.0], (FEW, _REPETITIONS))
    is_there_MR = np.arange(FEW)[:, None] < rng.poisson(len(differing), _REPETITIONS)
    usual_MR = sizes_MR[:FEW] * signs_MR * is_there_MR
    # the further losses come one by one; as many as come before time t are a Poisson number of mean t
    times_MR = np.cumsum(rng.exponential(size=(_MOST, _REPETITIONS)), axis=0)

    def power(num_lost: float) -> float:
        lost_MR = -sizes_MR[FEW:] * (times_MR <= num_lost)
        return float(_is_shown(np.concatenate([lost_MR, usual_MR]), num_clusters, largest).mean())

    low, high = 0.0, min(float(num_clusters), _MOST / 2)
    if power(high) < _POWER:
        return None
    while high - low > 0.05:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= _POWER else (middle, high)
    return float(high * sizes.mean() / num_clusters)


def _is_shown(differences_MR: np.ndarray, num_clusters: int, largest: float) -> np.ndarray:
    """Whether the interval of each repetition lies below 0: [R]."""
    # the bootstrap's interval, near enough
    is_shown_R = differences_MR.sum(axis=0) < -_Z95 * np.sqrt((differences_MR**2).sum(axis=0))
    is_few_R = (differences_MR != 0).sum(axis=0) < FEW
    few_MR = differences_MR[:, is_few_R]
    by_size = np.argsort(-np.abs(few_MR), axis=0)[: min(num_clusters, FEW - 1)]
    is_shown_R[is_few_R] = is_below_zero(np.take_along_axis(few_MR, by_size, axis=0), largest, num_clusters)
    return is_shown_R
