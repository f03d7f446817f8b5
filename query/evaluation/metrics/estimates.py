"""Metrics with their intervals, and their differences to the baseline, from the same draws for all conditions.

Shapes: Q queries.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from query.evaluation.metrics.per_query import PerQuery
from query.evaluation.metrics.right import Right
from query.evaluation.results import Estimate
from query.evaluation.statistics.bootstrap import Draws, difference, mean, percentile

_SHARES = {"median": 0.5, "p5": 0.05}


@dataclass(frozen=True)
class Task:
    """The queries of one task of a data set, and the draws that all conditions share."""

    name: str
    right: Right

    @cached_property
    def draws(self) -> Draws:
        """Of all its queries."""
        return Draws(self.right.clusters_Q)

    @cached_property
    def draws_of_several(self) -> Draws:
        """Of its queries with several right answers."""
        is_several_Q = self.right.several_Q
        return self.draws if is_several_Q.all() else Draws(self.right.clusters_Q[is_several_Q])

    def draws_for(self, metric: PerQuery) -> Draws:
        """Of the queries that a metric counts."""
        return self.draws_of_several if metric.statistic == "p5" else self.draws

    def estimates(self, metrics: Mapping[str, PerQuery]) -> dict[str, Estimate]:
        """Each metric with its interval."""
        return {name: estimate(metric, self.draws_for(metric)) for name, metric in metrics.items()}

    def differences(self, metrics: Mapping[str, PerQuery], baseline: Mapping[str, PerQuery]) -> dict[str, Estimate]:
        """The difference of each metric to the baseline, on the same queries."""
        return {name: difference_of(metric, baseline[name], self.draws_for(metric)) for name, metric in metrics.items()}


def estimate(metric: PerQuery, draws: Draws) -> Estimate:
    """A metric with its interval."""
    if metric.statistic == "mean":
        return mean(metric.values_Q, draws)
    return percentile(metric.values_Q, _SHARES[metric.statistic], draws)


def difference_of(metric: PerQuery, baseline: PerQuery, draws: Draws) -> Estimate:
    """A metric minus that of the baseline: for all but ranks, positive means better."""
    if metric.statistic == "mean":
        return difference(metric.values_Q, baseline.values_Q, draws)
    share = _SHARES[metric.statistic]
    samples, value = 0.0, 0.0
    for sign, one in ((1, metric), (-1, baseline)):
        samples = samples + sign * draws.quantiles(one.values_Q, share)
        value += sign * float(np.quantile(one.values_Q, share, method="inverted_cdf"))
    low, high = np.quantile(samples, [0.025, 0.975], method="inverted_cdf")
    return Estimate(value, float(min(low, value)), float(max(high, value)))
