"""Bootstrap intervals of recall: paired differences and recovered shares, over whole images. numpy only.

Shapes: Q queries.
"""

from collections.abc import Sequence

import numpy as np


def paired_difference(
    hits_Q: np.ndarray,
    baseline_Q: np.ndarray,
    clusters_Q: np.ndarray,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """Difference in recall between two conditions on the same queries, with a 95% bootstrap interval.

    Resamples whole clusters, because the captions of one image are not independent.

    Args:
        hits_Q: Whether each query was a hit in the condition.
        baseline_Q: The same for the baseline.
        clusters_Q: The image that each query belongs to.
        num_resamples: Number of bootstrap samples.
        seed: Seed for resampling.

    Returns:
        `(difference, (low, high))`, fractions; positive means the condition is better.
    """
    difference_Q = hits_Q.astype(np.float64) - baseline_Q.astype(np.float64)
    sums, sizes = _resampled_sums([difference_Q, np.ones(len(difference_Q))], clusters_Q, num_resamples, seed)
    samples = sums / sizes
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(difference_Q.mean()), (float(low), float(high))


def recovered_share(
    repaired_Q: np.ndarray,
    damaged_Q: np.ndarray,
    whole_Q: np.ndarray,
    clusters_Q: np.ndarray,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """Share of a loss that a repair recovers, (repaired - damaged) / (whole - damaged), with a bootstrap interval.

    All three conditions use the same queries and are resampled together. The interval is wide if the loss was small.

    Args:
        repaired_Q: Hits of each query after the repair; numbers, so that several k can be summed.
        damaged_Q: Hits before the repair.
        whole_Q: Hits without the loss.
        clusters_Q: The image that each query belongs to.
        num_resamples: Number of bootstrap samples.
        seed: Seed for resampling.

    Returns:
        `(share, (low, high))`, fractions; NaN if nothing was lost.
    """
    gained_Q, lost_Q = repaired_Q.astype(np.float64) - damaged_Q, whole_Q.astype(np.float64) - damaged_Q
    gained, lost = _resampled_sums([gained_Q, lost_Q], clusters_Q, num_resamples, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        share, samples = np.divide(gained_Q.sum(), lost_Q.sum()), gained / lost
    known = samples[np.isfinite(samples)]  # a sample may contain no loss
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return float(share), (float(low), float(high))


def _resampled_sums(
    many_values_Q: Sequence[np.ndarray], clusters_Q: np.ndarray, num_resamples: int, seed: int
) -> list[np.ndarray]:
    """Sum each array of values over bootstrap samples of whole clusters, using the same samples for all: [samples]."""
    _, cluster_Q = np.unique(clusters_Q, return_inverse=True)
    num_clusters = cluster_Q.max() + 1
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=num_resamples)
    return [draws @ np.bincount(cluster_Q, weights=values_Q) for values_Q in many_values_Q]
