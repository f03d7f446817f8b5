"""A small run of the drill that measures coverage: 300 repetitions, so its bounds are wider than the drill's."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from tests.drills import coverage

NUM, IMAGES = 300, 1000


def noise(num):
    """Three standard errors of a coverage of 95 % in so many repetitions."""
    return 3 * (0.95 * 0.05 / num) ** 0.5


NOISE = noise(NUM)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.99])
def test_means_are_covered(rate, rng, monkeypatch):
    monkeypatch.setattr(coverage, "RATES", (rate,))
    monkeypatch.setattr(coverage, "AGREEMENTS", (0.3,))
    ours, *_ = coverage.of_means(NUM, IMAGES, rng)
    assert 0.95 - NOISE <= ours["coverage"] <= 0.99


@pytest.mark.parametrize(
    ("change", "method"),
    [
        ((0.001, 0.5, 0.0), "exact"),
        ((0.005, 0.3, 0.3), "exact"),
        ((0.03, 1.0, 1.0), None),
        ((0.3, 0.3, 0.3), "bootstrap"),
    ],
)
def test_differences_are_covered(change, method, rng, monkeypatch):
    monkeypatch.setattr(coverage, "RATES", (0.7,))
    monkeypatch.setattr(coverage, "CHANGES", (change,))
    ours, percentile, _ = coverage.of_differences(NUM, IMAGES, rng)
    assert method in (None, ours["method"])
    assert ours["coverage"] >= 0.95 - NOISE
    if method == "exact":
        assert ours["coverage"] >= 0.95
        assert percentile["coverage"] < 0.93  # what the exact interval is for


def test_exact_intervals_find_no_counterexample(rng):
    for found in coverage.of_exact(NUM, 2, rng):
        assert max(found["all_above"], found["all_below"]) <= 0.025 + 3 * (0.025 / NUM) ** 0.5


def test_losses_are_detected_as_often_as_promised(rng):
    for found in coverage.of_power(100, IMAGES, rng):
        assert found["shown"] == pytest.approx(0.8, abs=0.13), found


def test_recovered_shares_are_covered(rng):
    for found in coverage.of_recovery(40, 400, rng):
        assert found.get("coverage", 1) >= 0.95 - noise(40), found
        assert found["known"] > 0.9 or found["lossy"] < 0.1


def test_quantiles_are_covered(rng):
    for found in coverage.of_quantiles(80, 200, rng):
        assert found["coverage"] >= 0.95 - noise(80), found


def test_speeds_at_a_loss_are_covered(rng):
    table = list(coverage.of_fronts(20, rng))
    assert np.mean([found["coverage"] for found in table]) >= 0.9
