"""Speed ratios over rounds: known values, drift, and the distribution of the samples."""

import numpy as np
import pytest

from query.evaluation.results import Estimate
from query.evaluation.statistics.ratios import DRIFT, quotient, rate, speedup, speedup_draws, t_quantile


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (6, 2.44691), (30, 2.04227), (1000, 1.96234)]
)
def test_quantiles_of_t_are_those_of_tables(degrees, expected):
    assert t_quantile(degrees) == pytest.approx(expected, rel=1e-5)
    assert t_quantile(degrees, 0.5) == pytest.approx(0, abs=1e-6)


def test_a_speedup_is_the_geometric_mean_of_its_pairs():
    found = speedup(np.array([1.0, 2.0, 4.0]), np.array([2.0, 8.0, 8.0]))
    assert found.value == pytest.approx((2 * 4 * 2) ** (1 / 3))
    # logs 0.69, 1.39 and 0.69: mean 0.924, standard error 0.231, t 4.303; the drift adds little
    assert found.low == pytest.approx(np.exp(0.9242 - 4.3027 * 0.23105), rel=1e-3)
    assert found.high == pytest.approx(np.exp(0.9242 + 4.3027 * 0.23105), rel=1e-3)
    assert found.method == "t"


def test_the_speed_of_the_machine_cancels_and_the_drift_between_runs_stays():
    machine = np.array([1.0, 5.0, 0.2, 3.0])
    found = speedup(machine / 2, machine)
    reach = np.exp(1.96 * DRIFT)
    assert (found.low, found.value, found.high) == pytest.approx((2 / reach, 2, 2 * reach), rel=1e-4)
    samples = speedup_draws(machine[None] / 2, machine, num=20_000)
    assert np.quantile(samples, [0.025, 0.975]) == pytest.approx((found.low, found.high), rel=0.002)


def test_a_slower_condition_is_the_reciprocal():
    one, other = np.random.default_rng(0).lognormal(size=(2, 7))
    forward, back = speedup(one, other), speedup(other, one)
    assert (back.low, back.value, back.high) == pytest.approx((1 / forward.high, 1 / forward.value, 1 / forward.low))


def test_a_rate_counts_items_per_second():
    found = rate(np.array([1.0, 4.0]), 64)
    assert found.value == pytest.approx(32)
    assert found.low < 16 < 64 < found.high


def test_one_round_has_no_interval():
    found = speedup(np.array([1.0]), np.array([2.0]))
    assert (found.value, found.method) == (2, "none")
    assert np.isnan([found.low, found.high]).all()


def test_samples_have_the_interval_of_the_speedup_and_share_the_baseline():
    rng = np.random.default_rng(0)
    baseline = rng.lognormal(0, 0.3, 7)  # the baseline is noisy, the conditions are not
    seconds = np.array([[0.5], [0.25]]) * rng.lognormal(0, 0.01, (2, 7))
    samples = speedup_draws(seconds, baseline, num=20_000)
    found = speedup(seconds[0], baseline)
    assert np.quantile(samples[0], [0.025, 0.975]) == pytest.approx((found.low, found.high), rel=0.03)
    assert np.corrcoef(np.log(samples))[0, 1] > 0.9
    np.testing.assert_array_equal(samples, speedup_draws(seconds, baseline, num=20_000))


def test_the_quotient_of_two_runs_adds_their_uncertainty_as_squares():
    one, other = Estimate(2.0, 1.0, 4.0, "t"), Estimate(1.0, 0.5, 2.0, "t")
    found = quotient(one, other)
    assert found.value == 2
    assert (found.low, found.high) == pytest.approx((2 * 2 ** -(2**0.5), 2 * 2 ** (2**0.5)))
    same = quotient(one, one)
    assert same.low < 1 == same.value < same.high
    # an end that is near adds little
    skew = quotient(Estimate(2.0, 1.9, 4.0, "t"), Estimate(1.0, 1.0, 1.0, "t"))
    assert (skew.low, skew.high) == pytest.approx((1.9, 4.0))


def test_the_interval_of_a_quotient_holds_the_doubt_of_both():
    found = quotient(Estimate(2.0, 1.8, 2.2, "t"), Estimate(1.0, 0.9, 1.1, "t"))
    assert found.value == pytest.approx(2)
    assert found.low < 1.8 < 2.2 < found.high
    assert found.low > 1.8 / 1.1


def test_samples_of_two_rounds_are_finite():
    samples = speedup_draws(np.array([[1.0, 90.0]]), np.array([1.0, 0.01]))
    assert np.isfinite(np.log(samples)).all()


@pytest.mark.parametrize("rounds", [3, 7, 20])
def test_intervals_cover_where_rounds_are_noisy(rounds):
    # the machine's speed wanders, and each call is delayed at random
    rng, num, held = np.random.default_rng(rounds), 1500, 0
    for _ in range(num):
        machine = np.exp(np.cumsum(rng.normal(0, 0.3, rounds)))
        seconds, baseline = machine * rng.lognormal(0, 0.1, (2, rounds)) * [[1], [1.7]]
        found = speedup(seconds, baseline)
        held += found.low <= 1.7 <= found.high
    assert 0.94 <= held / num <= 0.98


def test_the_baseline_against_itself_is_exactly_1():
    seconds_R = np.array([1.0, 1.3, 0.9, 1.1])
    found = speedup(seconds_R, seconds_R)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    baseline, other = speedup_draws(np.stack([seconds_R, seconds_R / 2]), seconds_R)
    assert (baseline == 1).all()
    assert other.std() > 0.01
