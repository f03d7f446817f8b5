"""Means, differences, quantiles and recovered shares: by hand, and as known properties ask."""

import numpy as np
import pytest

from query.evaluation.statistics.bootstrap import Draws, difference, mean, median, percentile, recovery

IMAGES = 200
CAPTIONS = np.repeat(np.arange(IMAGES), 5)


def ends(estimate):
    return estimate.low, estimate.high


def test_draws_are_whole_clusters_and_the_same_for_everything():
    draws = Draws(np.array([7, 7, 3, 9, 9, 9]), num=500)
    sizes = draws.totals(draws.sizes_C)
    # clusters in the order 3, 7, 9 have 1, 2 and 3 queries; each sample takes three of them
    assert set(np.unique(sizes)) == {3, 4, 5, 6, 7, 8, 9}
    first, second = np.array([1, 1, 0, 0, 0, 0]), np.array([0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(draws.means(first) + draws.means(second), 1)
    np.testing.assert_allclose(draws.means(np.stack([first, second], axis=1))[:, 1], draws.means(second))
    np.testing.assert_array_equal(draws.means(first), Draws(np.array([7, 7, 3, 9, 9, 9]), num=500).means(first))


def test_whole_numbers_stay_exact_in_large_sums():
    draws = Draws(np.arange(3000), num=50)
    weights_times_size = draws.totals(np.full(3000, 4097.0))
    np.testing.assert_array_equal(weights_times_size, np.full(50, 3000 * 4097.0))


def test_quantiles_of_draws_equal_those_of_the_drawn_queries():
    clusters, values = np.array([0, 0, 1, 2, 2, 2, 3]), np.array([5, 1, 2, 9, 9, 4, 7])
    draws = Draws(clusters, num=300)
    weights = np.stack([draws.totals(np.eye(4)[cluster]) for cluster in range(4)], axis=1).astype(int)
    for share in (0.05, 0.5, 0.9):
        expected = [np.quantile(np.repeat(values, row[clusters]), share, method="inverted_cdf") for row in weights]
        np.testing.assert_array_equal(draws.quantiles(values, share), expected)


def test_a_mean_and_its_interval():
    hits = np.random.default_rng(0).random(len(CAPTIONS)) < 0.4
    found = mean(hits, Draws(CAPTIONS))
    assert found.value == hits.mean()
    assert found.method == "bootstrap"
    # independent captions: the interval is that of a binomial share
    assert (found.high - found.low) / (2 * 1.96 * (0.24 / 1000) ** 0.5) == pytest.approx(1, abs=0.1)


def test_the_interval_is_wider_where_the_captions_of_an_image_agree():
    per_image = np.random.default_rng(2).random(IMAGES) < 0.3
    hits, baseline = np.repeat(per_image, 5), np.zeros(len(CAPTIONS))
    together = difference(hits, baseline, Draws(CAPTIONS))
    alone = difference(hits, baseline, Draws(np.arange(len(CAPTIONS))))
    assert together.value == pytest.approx(per_image.mean())
    # five captions that agree are one observation: the interval is sqrt(5) times as wide
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(5**0.5, rel=0.15)


def test_clusters_of_different_sizes_count_by_their_queries():
    clusters = np.repeat(np.arange(100), np.tile([1, 3], 50))
    hits = np.random.default_rng(0).random(len(clusters)) < 0.5
    found = mean(hits, Draws(clusters))
    assert found.value == hits.mean()
    assert found.low < found.value < found.high


def test_changes_add_up_draw_by_draw():
    rng, draws = np.random.default_rng(0), Draws(CAPTIONS)
    first, second, third = rng.random((3, len(CAPTIONS))) < 0.6
    steps = draws.means(second) - draws.means(first) + draws.means(third) - draws.means(second)
    np.testing.assert_allclose(steps, draws.means(third.astype(float) - first), atol=1e-9)


@pytest.mark.parametrize("change", [0.0, -1.0, 1.0])
def test_where_all_images_are_alike_the_interval_is_exact_and_open_to_one_side(change):
    baseline = np.ones(len(CAPTIONS)) if change < 0 else np.zeros(len(CAPTIONS))
    found = difference(baseline + change, baseline, Draws(CAPTIONS))
    assert (found.value, found.method) == (change, "exact")
    assert 3 / IMAGES < found.high - found.low < 8 / IMAGES


def test_few_differing_images_are_exact_and_many_are_not():
    draws, baseline = Draws(CAPTIONS), np.ones(len(CAPTIONS))
    methods = {}
    for num_differing in (1, 19, 20):
        changed = baseline.copy()
        changed[np.arange(num_differing) * 5] = 0
        found = difference(changed, baseline, draws)
        methods[num_differing] = found.method
        assert found.low < found.value == pytest.approx(-num_differing / len(CAPTIONS))
    assert methods == {1: "exact", 19: "exact", 20: "bootstrap"}


def test_differences_say_what_loss_they_could_detect():
    draws, baseline = Draws(CAPTIONS), np.ones(len(CAPTIONS))
    same = difference(baseline, baseline, draws)
    # six images that lose everything are the fewest that show; so many come in 80 % of samples where 7.9 are expected
    assert same.detectable == pytest.approx(7.9 / IMAGES, rel=0.1)
    noisy = np.random.default_rng(0).random((2, len(CAPTIONS))) < 0.8
    found = difference(*noisy, draws)
    error = (found.high - found.low) / (2 * 1.96)
    assert found.detectable == pytest.approx(2.8 * error, rel=0.15)
    assert mean(baseline, draws).detectable is None


def test_too_few_images_can_show_nothing():
    found = difference(np.ones(4), np.ones(4), Draws(np.arange(4)))
    assert found.detectable is None
    assert found.low == pytest.approx(-found.high)
    assert found.high > 0.5


def test_median_and_percentile_by_hand():
    ranks, draws = np.array([1, 1, 2, 3, 50]), Draws(np.arange(5))
    assert median(ranks, draws).value == 2
    assert percentile(ranks, 0.05, draws).value == 1
    assert percentile(ranks, 0.99, draws).value == 50
    found = median(np.arange(1, 102), Draws(np.arange(101)))
    # order statistics of a binomial number: about 51 +- 10
    assert found.value == 51
    assert 38 <= found.low <= 44
    assert 58 <= found.high <= 64


def test_recovery_by_hand():
    clusters, whole = np.arange(300), np.ones(300)
    damaged = (clusters >= 90).astype(float)
    repaired = (clusters >= 30).astype(float)
    found = recovery(repaired, damaged, whole, Draws(clusters))
    assert found.value == pytest.approx(2 / 3)
    assert found.method == "bootstrap"
    # a share of 90: 0.667 +- 1.96 * 0.05
    assert 0.54 < found.low < 0.6 < found.value < 0.73 < found.high < 0.79
    # every image loses two of its five captions, and one comes back: there is no noise
    half = recovery(
        *(np.tile(row, 60) for row in ([1, 0, 1, 1, 1], [0, 0, 1, 1, 1], np.ones(5))), Draws(CAPTIONS[:300])
    )
    assert (half.value, *ends(half)) == (0.5, 0.5, 0.5)
    harmful = recovery(np.clip(damaged - (clusters % 4 == 3), 0, 1), damaged, whole, Draws(clusters))
    assert harmful.value < 0


def test_a_repair_of_everything_or_of_almost_nothing_has_an_exact_interval():
    draws, whole = Draws(CAPTIONS), np.ones(len(CAPTIONS))
    damaged = (CAPTIONS >= 60).astype(float)
    full = recovery(whole, damaged, whole, draws)
    assert (full.value, full.method) == (1, "exact")
    # nothing is lacking in 200 images: by the rule of three, less than 1.9 % of a loss of 30 %
    assert 0.9 < full.low < 0.95
    little = recovery((CAPTIONS >= 58).astype(float), damaged, whole, draws)
    assert (little.value, little.method) == (pytest.approx(2 / 60), "exact")
    assert -0.1 < little.low < 0 < little.value < little.high < 0.2


def test_the_share_of_a_loss_that_may_be_nothing_has_no_bounds():
    draws, whole = Draws(CAPTIONS), np.ones(len(CAPTIONS))
    nothing = recovery(whole, whole, whole, draws)
    assert nothing.method == "none"
    assert np.isnan([nothing.value, *ends(nothing)]).all()
    damaged = whole.copy()
    damaged[[0, 5, 10]] = 0
    few = recovery(whole, damaged, whole, draws)
    assert (few.value, few.method) == (1, "none")
    assert np.isnan(ends(few)).all()


def test_clusters_that_are_all_alike_at_any_value_have_an_interval_without_width():
    found = mean(np.full(60, 0.3), Draws(np.arange(60)))
    assert (found.low, found.high) == pytest.approx((0.3, 0.3), abs=1e-6)
