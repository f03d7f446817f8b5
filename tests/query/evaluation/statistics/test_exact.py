"""The exact interval against known ones, and its coverage for two kinds of difference by enumeration."""

import math
from itertools import pairwise

import numpy as np
import pytest

from query.evaluation.statistics.exact import exact_intervals


def of_counts(num_worse, num_better, num_clusters, size=1.0):
    """Intervals for differences of clusters that lose or gain `size`."""
    sums = np.zeros((num_clusters, 1))
    sums[:num_worse], sums[num_worse : num_worse + num_better] = -size, size
    low, high = exact_intervals(sums, np.ones(num_clusters), np.zeros(1), (-1.0, 1.0))
    return low.item(), high.item()


@pytest.mark.parametrize(
    ("num", "num_clusters", "low", "high"),
    # Clopper and Pearson's intervals of 95 %
    [(0, 10, 0, 0.3085), (1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129), (3, 1000, 0.00062, 0.00874)],
)
def test_hits_and_misses_have_the_interval_of_clopper_and_pearson(num, num_clusters, low, high):
    sums = (np.arange(num_clusters) < num).astype(float)[:, None]
    found = exact_intervals(sums, np.ones(num_clusters), np.zeros(1), (0.0, 1.0))
    assert found[0].item() == pytest.approx(low, rel=0.1, abs=1e-9)
    assert found[1].item() == pytest.approx(high, rel=0.04)
    # where almost all are hits, the same from the other end
    mirrored = exact_intervals(1 - sums, np.ones(num_clusters), np.ones(1), (0.0, 1.0))
    assert mirrored[1].item() == pytest.approx(1 - found[0].item(), abs=1e-4)


def test_without_any_difference_it_is_the_rule_of_three():
    low, high = of_counts(0, 0, 1000)
    assert high == pytest.approx(1 - 0.025 ** (1 / 1000), rel=0.05)
    assert low == pytest.approx(-high)


def test_a_small_loss_in_few_images_does_not_rule_out_rare_large_gains():
    assert of_counts(10, 0, 1000, size=0.2)[1] > 0
    assert of_counts(10, 0, 1000, size=1.0)[1] < 0


def test_more_losses_lower_both_ends():
    found = [of_counts(num, 3, 500) for num in range(10)]
    assert all(one[0] > two[0] and one[1] > two[1] for one, two in pairwise(found))


@pytest.mark.parametrize(("worse", "better"), [(0.5, 0.5), (2, 2), (6, 1), (4, 4), (8, 0.2)])
def test_it_covers_for_losses_and_gains_by_enumeration(worse, better):
    # Poisson numbers of images that lose and that gain, all pairs below 20 together with their probabilities
    num_clusters, missed = 200, np.zeros(2)
    pairs = [(lost, gained) for lost in range(20) for gained in range(20 - lost)]
    sums = np.zeros((num_clusters, len(pairs)))
    for column, (lost, gained) in enumerate(pairs):
        sums[:lost, column], sums[lost : lost + gained, column] = -1, 1
    low, high = exact_intervals(sums, np.ones(num_clusters), np.zeros(len(pairs)), (-1.0, 1.0))
    truth = (better - worse) / num_clusters
    for (lost, gained), above, below in zip(pairs, low > truth, high < truth, strict=True):
        likely = [math.exp(-rate) * rate**num / math.factorial(num) for rate, num in ((worse, lost), (better, gained))]
        missed += np.array([above, below]) * math.prod(likely)
    assert missed.max() <= 0.025
