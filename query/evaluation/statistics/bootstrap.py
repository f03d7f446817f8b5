"""Estimates over queries: means, differences, quantiles and recovered shares, each with its 95 % interval.

Whole clusters are resampled, because the captions of an image are not independent. All of one data set uses the same
draws, so that conditions stay paired. Intervals of means are BCa: near 0 and 1, the plain percentile interval misses
several times as often on one side as on the other. Where fewer than 20 clusters differ, there is too little to
resample, and `exact` takes over. `tests/drills/coverage.py` measures the coverage.

Shapes: Q queries, C clusters, V columns of values that are estimated alike.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from query.evaluation.results import Estimate
from query.evaluation.statistics.exact import FEW, exact_intervals
from query.evaluation.statistics.power import detectable_loss

_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.975)
_SAME = 1e-9  # a difference in a cluster's sum that is rounding
_BLOCK_BYTES = 32 << 20


class Draws:
    """Bootstrap samples of whole clusters. Holds num x C bytes."""

    def __init__(self, clusters_Q: np.ndarray, num: int = 2000, seed: int = 0) -> None:
        """Draw.

        Args:
            clusters_Q: What each query belongs to, any labels.
            num: Number of samples.
            seed: The same seed and clusters give the same samples.
        """
        _, self._cluster_Q = np.unique(clusters_Q, return_inverse=True)
        self.sizes_C = np.bincount(self._cluster_Q)
        rng, num_clusters = np.random.default_rng(seed), len(self.sizes_C)
        self._weights = np.empty((num, num_clusters), dtype=np.uint8)  # a cluster is never drawn 256 times
        for row in self._weights:
            row[:] = np.bincount(rng.integers(0, num_clusters, num_clusters), minlength=num_clusters)

    @property
    def num(self) -> int:
        """Number of samples."""
        return len(self._weights)

    def by_cluster(self, values_Q: np.ndarray) -> np.ndarray:
        """Sums of values over each cluster: [Q] to [C], [Q, V] to [C, V], float64."""
        values_QV = np.asarray(values_Q, dtype=np.float64).reshape(len(values_Q), -1)
        columns = [np.bincount(self._cluster_Q, weights=column, minlength=len(self.sizes_C)) for column in values_QV.T]
        return np.stack(columns, axis=-1).reshape(len(self.sizes_C), *np.shape(values_Q)[1:])

    def totals(self, sums_C: np.ndarray) -> np.ndarray:
        """Sum over the clusters of each sample: [C] to [num], [C, V] to [num, V]."""
        sums_C = np.asarray(sums_C, dtype=np.float32)  # whole numbers stay exact
        blocks = np.array_split(self._weights, 1 + 4 * self._weights.size // _BLOCK_BYTES)
        return np.concatenate([block.astype(np.float32) @ sums_C for block in blocks]).astype(np.float64)

    def means(self, values_Q: np.ndarray) -> np.ndarray:
        """Mean over the queries of each sample: [Q] to [num], [Q, V] to [num, V]."""
        totals, sizes = self.totals(self.by_cluster(values_Q)), self.totals(self.sizes_C)
        return totals / (sizes if totals.ndim == 1 else sizes[:, None])

    def quantiles(self, values_Q: np.ndarray, share: float) -> np.ndarray:
        """The smallest value that at least `share` of the queries of each sample do not exceed: [num]."""
        # no sample's quantile is further away than 8 standard errors: all values beyond are alike
        reach = 4 / len(self.sizes_C) ** 0.5
        window = np.quantile(values_Q, np.clip([share - reach, share + reach], 0, 1), method="inverted_cdf")
        levels_K, level_Q = np.unique(np.clip(values_Q, *window), return_inverse=True)
        places_Q, shape = self._cluster_Q * len(levels_K) + level_Q, (len(self.sizes_C), len(levels_K))
        counts_CK = np.bincount(places_Q, minlength=shape[0] * shape[1]).reshape(shape)
        reached_DK = np.cumsum(self.totals(counts_CK), axis=1)
        needed_D1 = np.maximum(np.ceil(share * reached_DK[:, -1:] - _SAME), 1)
        return levels_K[(reached_DK >= needed_D1).argmax(axis=1)].astype(np.float64)


class Intervals(NamedTuple):
    """Values with their 95 % intervals, each [V]; `is_exact` says which are of the exact kind."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    is_exact: np.ndarray


def mean(values_Q: np.ndarray, draws: Draws) -> Estimate:
    """Mean of values between 0 and 1, such as hits, reciprocal ranks or nDCG."""
    return _estimate(mean_intervals(np.asarray(values_Q)[:, None], draws, 0.0))


def difference(values_Q: np.ndarray, baseline_Q: np.ndarray, draws: Draws) -> Estimate:
    """Mean difference to the baseline on the same queries; positive means better. Says what loss it could detect.

    Args:
        values_Q: Values of the condition, between 0 and 1.
        baseline_Q: The same of the baseline.
        draws: Of the queries' clusters.
    """
    values_Q = np.asarray(values_Q, dtype=np.float64) - baseline_Q
    estimate = _estimate(mean_intervals(values_Q[:, None], draws, -1.0))
    sizes_C = draws.sizes_C
    lost_C = draws.by_cluster(values_Q) / sizes_C.mean()
    detectable = detectable_loss(lost_C, float(sizes_C.max() / sizes_C.mean()))
    return Estimate(estimate.value, estimate.low, estimate.high, estimate.method, detectable)


def median(values_Q: np.ndarray, draws: Draws) -> Estimate:
    """Median of values of any range, such as ranks: the smallest that half of the queries do not exceed."""
    return percentile(values_Q, 0.5, draws)


def percentile(values_Q: np.ndarray, share: float, draws: Draws) -> Estimate:
    """The smallest value that at least `share` of the queries do not exceed, with its percentile interval."""
    low, high = np.quantile(draws.quantiles(values_Q, share), [0.025, 0.975], method="inverted_cdf")
    value = np.quantile(values_Q, share, method="inverted_cdf")
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))


def recovery(repaired_Q: np.ndarray, damaged_Q: np.ndarray, whole_Q: np.ndarray, draws: Draws) -> Estimate:
    """Share of a loss that a repair recovers: (repaired - damaged) / (whole - damaged), each a mean over the queries.

    Args:
        repaired_Q: Values of each query after the repair, in [0, 1].
        damaged_Q: Values before the repair.
        whole_Q: Values without the loss.
        draws: Of the queries' clusters.

    Returns:
        The share. Without a loss it is NaN. Its interval is NaN, and its method `none`, where fewer than 20 clusters
        lost anything or the interval of the loss includes 0: a share of what may be nothing has no bounds. Where fewer
        than 20 gained anything, or fewer than 20 still lack anything, that part has an exact interval.
    """
    gained_Q, lost_Q = np.asarray(repaired_Q, dtype=np.float64) - damaged_Q, np.asarray(whole_Q) - damaged_Q
    values_QV = np.stack([gained_Q, lost_Q, lost_Q - gained_Q], axis=-1)
    gained, lost, lacking = (Intervals(*column) for column in zip(*mean_intervals(values_QV, draws, -1.0), strict=True))
    share = gained.value / lost.value if lost.value else np.nan
    if lost.is_exact or lost.low <= 0:
        return Estimate(float(share), np.nan, np.nan, "none")
    losses = np.array([lost.low, lost.high])
    if gained.is_exact:
        return Estimate(float(share), float((gained.low / losses).min()), float((gained.high / losses).max()), "exact")
    if lacking.is_exact:
        low, high = 1 - (lacking.high / losses).max(), 1 - (lacking.low / losses).min()
        return Estimate(float(share), float(low), float(high), "exact")
    sums_CV = draws.by_cluster(values_QV[:, :2])
    totals = draws.totals(sums_CV)
    totals = totals[totals[:, 1] > 0]
    influence_C1 = sums_CV[:, :1] - share * sums_CV[:, 1:]
    low, high = bca(np.array([share]), totals[:, :1] / totals[:, 1:], influence_C1)
    return Estimate(float(share), min(low.item(), float(share)), max(high.item(), float(share)))


def mean_intervals(values_QV: np.ndarray, draws: Draws, lowest: float) -> Intervals:
    """Means of many columns of values between `lowest` and 1, with their intervals."""
    sizes_C1 = draws.sizes_C[:, None]
    sums_CV = draws.by_cluster(values_QV)
    value_V = sums_CV.sum(axis=0) / sizes_C1.sum()
    # clusters that are all alike, for example all hits, leave nothing to resample: count the others
    usual = np.array(sorted({lowest, 0.0, 1.0}))
    unusual_UV = np.stack([(np.abs(sums_CV - level * sizes_C1) > _SAME).sum(axis=0) for level in usual])
    usual_V, is_exact_V = usual[unusual_UV.argmin(axis=0)], unusual_UV.min(axis=0) < FEW
    low_V, high_V = np.empty_like(value_V), np.empty_like(value_V)
    if is_exact_V.any():
        bounds = exact_intervals(sums_CV[:, is_exact_V], draws.sizes_C, usual_V[is_exact_V], (lowest, 1.0))
        low_V[is_exact_V], high_V[is_exact_V] = bounds
    if not is_exact_V.all():
        sums_CV, values_V = sums_CV[:, ~is_exact_V], value_V[~is_exact_V]
        samples = draws.totals(sums_CV) / draws.totals(sizes_C1)
        low_V[~is_exact_V], high_V[~is_exact_V] = bca(values_V, samples, sums_CV - values_V * sizes_C1)
    return Intervals(value_V, low_V, high_V, is_exact_V)


def bca(
    value_V: np.ndarray, samples_DV: np.ndarray, influence_CV: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Bias-corrected and accelerated bootstrap intervals (Efron 1987).

    Args:
        value_V: The estimates.
        samples_DV: The same estimates of each bootstrap sample.
        influence_CV: How much each cluster pulls each estimate, up to a factor. Without it, there is no acceleration.

    Returns:
        Lower and upper ends, each [V].
    """
    num = len(samples_DV)
    same = 1e-7 * np.maximum(np.abs(value_V), 1e-3)
    below_V = (samples_DV < value_V - same).mean(axis=0) / 2 + (samples_DV <= value_V + same).mean(axis=0) / 2
    bias_V = np.array([_NORMAL.inv_cdf(share) for share in np.clip(below_V, 0.5 / num, 1 - 0.5 / num)])
    skew_V = np.zeros_like(value_V)
    if influence_CV is not None:
        spread_V = 6 * (influence_CV**2).sum(axis=0) ** 1.5
        skew_V = (influence_CV**3).sum(axis=0) / np.where(spread_V > 0, spread_V, 1)  # all clusters may be alike
    ordered_DV = np.sort(samples_DV, axis=0)
    ends = []
    for z in (-_Z, _Z):
        shifted_V = bias_V + (bias_V + z) / (1 - skew_V * (bias_V + z))
        place_V = (num - 1) * np.array([_NORMAL.cdf(value) for value in shifted_V])
        lower_V = np.floor(place_V).astype(int)
        upper_V, columns = np.minimum(lower_V + 1, num - 1), np.arange(len(value_V))
        part_V = place_V - lower_V
        ends.append((1 - part_V) * ordered_DV[lower_V, columns] + part_V * ordered_DV[upper_V, columns])
    return ends[0], ends[1]


def _estimate(intervals: Intervals) -> Estimate:
    value, low, high, is_exact = (column[0].item() for column in intervals)
    return Estimate(value, min(low, value), max(high, value), "exact" if is_exact else "bootstrap")
