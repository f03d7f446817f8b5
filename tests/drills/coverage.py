"""How often the intervals of `query.evaluation.statistics` hold the truth, by simulation.

    python tests/drills/coverage.py --json coverage.json        # a few minutes on 2 cores

Every repetition draws a test set anew: images with five captions each, correlated within an image. What is true is
known, so each interval holds it or not. The target is 93 to 97 % for the bootstrap and at least 95 % for exact ones.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from query.evaluation.statistics.bootstrap import Draws, mean_intervals, recovery
from query.evaluation.statistics.exact import FEW, exact_intervals
from query.evaluation.statistics.fronts import speed_at_loss
from query.evaluation.statistics.power import detectable_loss

CAPTIONS = 5
RATES = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.99)
AGREEMENTS = (0.05, 0.3, 0.7)
"""Correlation between the hits of two captions of one image."""
CHANGES = (
    # share of images that may change, of their hits that are lost, of their misses that are gained
    (0.0, 0.0, 0.0),
    (0.001, 0.5, 0.0),
    (0.005, 0.3, 0.3),
    (0.01, 1.0, 0.0),
    (0.02, 0.3, 0.3),
    (0.03, 0.3, 0.1),
    (0.03, 1.0, 1.0),
    (0.06, 0.3, 0.3),
    (0.1, 0.5, 0.1),
    (0.3, 0.3, 0.3),
    (1.0, 0.1, 0.05),
)
"""From no difference at all to one in every image."""


def hits(rate: float, agreement: float, num_images: int, num: int, rng: np.random.Generator) -> np.ndarray:
    """Hits among the captions of each image, beta-binomial: [images, repetitions]."""
    scale = 1 / agreement - 1
    return rng.binomial(CAPTIONS, rng.beta(rate * scale, (1 - rate) * scale, (num_images, num)))


def changes(before: np.ndarray, change: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Differences of hits where some images change, [images, repetitions]."""
    share, lost, gained = change
    is_changed = rng.random(before.shape) < share
    return (rng.binomial(CAPTIONS - before, gained) - rng.binomial(before, lost)) * is_changed


def coverage(truth: float, low: np.ndarray, high: np.ndarray) -> dict[str, float]:
    """Shares of intervals that hold the truth, and that lie above and below it; mean width."""
    is_above, is_below = low > truth + 1e-12, high < truth - 1e-12
    return {
        "coverage": float(1 - (is_above | is_below).mean()),
        "all_above": float(is_above.mean()),
        "all_below": float(is_below.mean()),
        "width": float((high - low).mean()),
    }


def rows_of(sums: np.ndarray, truth: float, lowest: float, draws: Draws) -> list[dict[str, Any]]:
    """Coverage of what the library gives, and of each plain method, for sums over images of five values each."""
    found = mean_intervals(sums / CAPTIONS, draws, lowest)
    rows = [{"method": "library", "share_exact": float(found.is_exact.mean()), **coverage(truth, *found[1:3])}]
    samples = draws.totals(sums) / (CAPTIONS * len(sums))
    rows.append({"method": "percentile", **coverage(truth, *np.quantile(samples, [0.025, 0.975], axis=0))})
    error = sums.std(axis=0, ddof=1) / CAPTIONS / len(sums) ** 0.5
    rows.append({"method": "t", **coverage(truth, found.value - 1.96 * error, found.value + 1.96 * error)})
    usual = min({lowest, 0.0, 1.0}, key=lambda level: (sums != level * CAPTIONS).mean())
    is_few = (sums != usual * CAPTIONS).sum(axis=0) < FEW
    if is_few.mean() > 0.99:
        sizes = np.ones(len(sums))
        bounds = exact_intervals(sums / CAPTIONS, sizes, np.full(sums.shape[1], usual), (lowest, 1.0))
        rows.append({"method": "exact", **coverage(truth, *bounds)})
    return rows


def of_means(num: int, num_images: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Recall itself, by rate and agreement."""
    draws = Draws(np.arange(num_images))
    for rate in RATES:
        for agreement in AGREEMENTS:
            sums = hits(rate, agreement, num_images, num, rng)
            for row in rows_of(sums, rate, 0.0, draws):
                yield {"of": "mean", "rate": rate, "agreement": agreement, **row}


def of_differences(num: int, num_images: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Differences of recall, by rate and kind of change."""
    draws = Draws(np.arange(num_images))
    for rate in RATES:
        for change in CHANGES:
            share, lost, gained = change
            sums = changes(hits(rate, 0.3, num_images, num, rng), change, rng)
            truth = share * ((1 - rate) * gained - rate * lost)
            differing = float((sums != 0).sum(axis=0).mean())
            for row in rows_of(sums, truth, -1.0, draws):
                yield {"of": "difference", "rate": rate, "change": change, "differing": differing, **row}
