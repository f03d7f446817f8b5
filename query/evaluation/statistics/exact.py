"""Intervals of a mean that cover at least 95 % even where almost all clusters are alike. numpy only.

This is Gaffke's bound (2005). Add one cluster at the far end of what is possible, weigh all clusters by random spacings
(a Dirichlet distribution), and take the quantile of that mean. For hits and misses it is the interval of Clopper and
Pearson; where nothing differs it is the rule of three (3.7 / C to each side). Its coverage is proven for two values and
a conjecture, so far unrefuted, for more: `tests/drills/coverage.py` looks for counterexamples. Two constructions that
are proven for all distributions give intervals about twice as wide: those of Clopper and Pearson for each threshold of
the difference, split by Bonferroni, and betting.

Shapes: C clusters, V columns, M differing clusters, D draws.
"""

from functools import cache

import numpy as np

FEW = 20
"""Where fewer clusters differ, the bootstrap has too little to resample."""
_NUM = 20_000
_LEVEL = 0.025 - 2 * (0.025 * 0.975 / _NUM) ** 0.5  # the noise of the draws must not make it narrower
_COLUMNS = 64


def exact_intervals(
    sums_CV: np.ndarray, sizes_C: np.ndarray, usual_V: np.ndarray, bounds: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Conservative 95 % intervals of means over queries, of columns that are alike in almost all clusters.

    Args:
        sums_CV: Sum of the values of each cluster.
        sizes_C: Queries of each cluster; their mean is taken as known.
        usual_V: The value of all clusters but fewer than 20.
        bounds: The lowest and highest value that a query can have.

    Returns:
        Lower and upper ends, each [V].
    """
    unusual_CV = (sums_CV - usual_V * sizes_C[:, None]) / sizes_C.mean()
    largest_MV = np.take_along_axis(unusual_CV, np.argsort(-np.abs(unusual_CV), axis=0)[: FEW - 1], axis=0)
    reach = sizes_C.max() / sizes_C.mean()
    ends = []
    for bound, level in zip(bounds, (_LEVEL, 1 - _LEVEL), strict=True):
        far_V = reach * (bound - usual_V)
        parts = [
            np.quantile(_gaffke_means(largest_MV[:, part], far_V[part], len(sizes_C)), level, axis=0)
            for part in (slice(start, start + _COLUMNS) for start in range(0, len(usual_V), _COLUMNS))
        ]
        ends.append(np.clip(usual_V + np.concatenate(parts), *bounds))
    return ends[0], ends[1]


def is_below_zero(unusual_MV: np.ndarray, far: float, num_clusters: int) -> np.ndarray:
    """Whether the interval of each column lies below 0, [V]. From fewer draws, so within about 0.5 % of the level.

    Args:
        unusual_MV: The clusters that may differ from 0: all, or 19 of them.
        far: The highest value that a cluster can have.
        num_clusters: How many there are in all; the others are 0.
    """
    means_DV = _gaffke_means(unusual_MV, np.full(unusual_MV.shape[1], far), num_clusters, 2000)
    return (means_DV >= 0).mean(axis=0) < _LEVEL


def _gaffke_means(unusual_MV: np.ndarray, far_V: np.ndarray, num_clusters: int, num: int = _NUM) -> np.ndarray:
    spacings, total = _spacings(len(unusual_MV), num_clusters)
    weighted_DV = spacings[:num] @ np.concatenate([unusual_MV, far_V[None]]).astype(np.float32)
    return weighted_DV / total[:num, None]


@cache
def _spacings(num_unusual: int, num_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Spacings of the clusters that may differ and of the added one [D, M + 1], and the sum of all [D]."""
    rng = np.random.default_rng(0)
    spacings = rng.exponential(size=(_NUM, num_unusual + 1)).astype(np.float32)
    others = num_clusters - num_unusual
    return spacings, spacings.sum(axis=1) + (rng.gamma(others, size=_NUM).astype(np.float32) if others else 0)
