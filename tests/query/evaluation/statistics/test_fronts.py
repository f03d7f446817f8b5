"""Fronts, and the speed at a loss."""

import numpy as np
import pytest

from query.evaluation.statistics.fronts import front, front_speeds, speed_at_loss


def test_a_front_holds_what_nothing_beats_slowest_first():
    speeds, losses = np.array([3, 1, 2, 2, 1.5, 3, 2.5]), np.array([0.05, 0, 0.01, 0.01, 0.02, 0.04, 0.04])
    # 3 and 6 lose as much as faster ones, 4 is slower and worse than 2
    assert front(speeds, losses).tolist() == [1, 2, 5]
    assert front(np.array([1.0]), np.array([0.0])).tolist() == [0]


def test_a_faster_condition_without_loss_beats_the_baseline():
    assert front(np.array([1, 1.2]), np.array([0, -0.001])).tolist() == [1]


@pytest.mark.parametrize(
    ("max_loss", "speed"),
    [(0, 1), (0.005, 2**0.5), (0.01, 2), (0.02, 8**0.5), (0.03, 4), (0.1, 4), (-0.01, None)],
)
def test_speed_is_interpolated_on_a_log_scale(max_loss, speed):
    speeds, losses = np.array([[1], [4], [2], [1.5]]), np.array([[0], [0.03], [0.01], [0.02]])
    found = front_speeds(losses, speeds, max_loss)[0]
    assert np.isnan(found) if speed is None else found == pytest.approx(speed)


def test_speeds_of_draws_equal_those_of_each_front():
    rng = np.random.default_rng(0)
    losses, speeds = rng.random((6, 200)).round(1), 1 + rng.random((6, 200)).round(1)
    losses[0], speeds[0] = 0, 1
    for draw, found in enumerate(front_speeds(losses, speeds, 0.45)):
        places = front(speeds[:, draw], losses[:, draw])
        expected = np.exp(np.interp(0.45, losses[places, draw], np.log(speeds[places, draw])))
        assert found == pytest.approx(expected)


def test_one_interval_for_speed_at_a_loss():
    rng = np.random.default_rng(0)
    losses = np.stack([np.zeros(2000), rng.normal(0.008, 0.001, 2000), rng.normal(0.03, 0.002, 2000)])
    speeds = np.exp(np.stack([np.zeros(2000), rng.normal(np.log(1.5), 0.02, 2000), rng.normal(np.log(2), 0.02, 2000)]))
    found = speed_at_loss(losses, speeds, 0.01)
    # between 1.5 at 0.8 points and 2 at 3 points
    assert found.value == pytest.approx(1.5 * (4 / 3) ** (0.002 / 0.022), rel=0.01)
    assert 1.35 < found.low < 1.48 < found.value < 1.57 < found.high < 1.7
    surely = speed_at_loss(losses, np.repeat(speeds.mean(axis=1, keepdims=True), 2000, axis=1), 0.1)
    assert surely.low == pytest.approx(surely.high)
    assert speed_at_loss(losses[1:], speeds[1:], 0.001) is None
