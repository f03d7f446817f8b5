"""Metrics with their intervals, and their differences to the baseline, from draws that all conditions share.

Shapes: Q queries, V metrics that are means.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from query.evaluation.metrics.per_query import PerQuery
from query.evaluation.metrics.right import Right
from query.evaluation.results import Estimate
from query.evaluation.statistics.bootstrap import Draws, mean_intervals, percentile
from query.evaluation.statistics.power import detectable_loss

_SHARES = {"median": 0.5, "p5": 0.05}


@dataclass(frozen=True)
class Task:
    """The queries of one task of a data set, and the draws that all conditions share."""

    right: Right

    @cached_property
    def draws(self) -> Draws:
        """Of all its queries."""
        return Draws(self.right.clusters_Q)

    @cached_property
    def draws_of_several(self) -> Draws:
        """Of its queries with several right answers."""
        several_Q = self.right.several_Q
        return self.draws if several_Q.all() else Draws(self.right.clusters_Q[several_Q])

    def estimates(self, metrics: Mapping[str, PerQuery]) -> dict[str, Estimate]:
        """Each metric with its interval."""
        found = self._means({name: metric.values_Q for name, metric in metrics.items() if metric.is_mean}, 0.0)
        for name, metric in metrics.items():
            if not metric.is_mean:
                found[name] = percentile(metric.values_Q, _SHARES[metric.statistic], self._draws_for(metric))
        return {name: found[name] for name in metrics}

    def differences(self, metrics: Mapping[str, PerQuery], baseline: Mapping[str, PerQuery]) -> dict[str, Estimate]:
        """Each metric minus that of the baseline on the same queries: for all but ranks, positive means better."""
        apart = {name: one.values_Q - baseline[name].values_Q for name, one in metrics.items() if one.is_mean}
        found = self._means(apart, -1.0)
        sizes_C = self.draws.sizes_C
        for name, values_Q in apart.items():
            differences_C = self.draws.by_cluster(values_Q) / sizes_C.mean()
            detectable = detectable_loss(differences_C, float(sizes_C.max() / sizes_C.mean()))
            found[name] = replace(found[name], detectable=detectable)
        for name, metric in metrics.items():
            if not metric.is_mean:
                found[name] = _between(metric, baseline[name], self._draws_for(metric))
        return {name: found[name] for name in metrics}

    def _draws_for(self, metric: PerQuery) -> Draws:
        return self.draws_of_several if metric.statistic == "p5" else self.draws

    def _means(self, values: Mapping[str, np.ndarray], lowest: float) -> dict[str, Estimate]:
        """Means of values of at least `lowest`. Equal ones, such as most variants of a metric, are computed once."""
        distinct = {values_Q.tobytes(): values_Q for values_Q in values.values()}
        found = mean_intervals(np.stack(list(distinct.values()), axis=1), self.draws, lowest)
        estimates = [
            Estimate(value, min(low, value), max(high, value), "exact" if is_exact else "bootstrap")
            for value, low, high, is_exact in zip(*(column_V.tolist() for column_V in found), strict=True)
        ]
        of = dict(zip(distinct, estimates, strict=True))
        return {name: of[values_Q.tobytes()] for name, values_Q in values.items()}


def _between(metric: PerQuery, baseline: PerQuery, draws: Draws) -> Estimate:
    """The difference of two quantiles, each of the same draws."""
    share = _SHARES[metric.statistic]
    samples = draws.quantiles(metric.values_Q, share) - draws.quantiles(baseline.values_Q, share)
    ends = [float(np.quantile(one.values_Q, share, method="inverted_cdf")) for one in (metric, baseline)]
    low, high = np.quantile(samples, [0.025, 0.975], method="inverted_cdf")
    value = ends[0] - ends[1]
    return Estimate(value, float(min(low, value)), float(max(high, value)))
