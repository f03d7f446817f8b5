"""How often the intervals of `query.evaluation.statistics` hold the truth, by simulation.

    OMP_NUM_THREADS=1 python tests/drills/coverage.py --json coverage.json     # a few minutes on 2 cores

Every repetition draws a new test set: images with five captions each, correlated within an image. What is true is
known, so each interval holds it or not. The target is 93 to 97 % for the bootstrap and at least 95 % for exact ones.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from query.evaluation.statistics.bootstrap import Draws, mean_intervals, percentile, recovery
from query.evaluation.statistics.exact import FEW, exact_intervals
from query.evaluation.statistics.fronts import front_speeds, speed_at_loss
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
    share = float(found.is_exact.mean())
    kind = "exact" if share > 0.99 else "bootstrap" if share < 0.01 else "either"
    rows = [{"method": kind, "share_exact": share, **coverage(truth, *found[1:3])}]
    samples = draws.totals(sums) / (CAPTIONS * len(sums))
    rows.append({"method": "percentile", **coverage(truth, *np.quantile(samples, [0.025, 0.975], axis=0))})
    error = sums.std(axis=0, ddof=1) / CAPTIONS / len(sums) ** 0.5
    rows.append({"method": "t", **coverage(truth, found.value - 1.96 * error, found.value + 1.96 * error)})
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
    for rate in RATES[::3]:
        for change in CHANGES:
            share, lost, gained = change
            sums = changes(hits(rate, 0.3, num_images, num, rng), change, rng)
            truth = share * ((1 - rate) * gained - rate * lost)
            differing = float((sums != 0).sum(axis=0).mean())
            for row in rows_of(sums, truth, -1.0, draws):
                yield {"of": "difference", "rate": rate, "change": change, "differing": differing, **row}


def of_exact(num: int, num_tries: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """The worst of many random distributions in which few images differ: a search for counterexamples."""

    def try_out(images: int, levels: np.ndarray, shares: np.ndarray, times: int) -> dict[str, float]:
        counts = rng.multinomial(images, [*shares, 1 - shares.sum()], times)[:, :-1]
        counts = counts[counts.sum(axis=1) < FEW][:times]
        if not len(counts):
            return {"coverage": 1.0, "all_above": 0.0, "all_below": 0.0, "width": 0.0}
        sums = np.zeros((images, len(counts)))
        for column, row in enumerate(counts):
            values = np.repeat(levels, row)
            sums[: len(values), column] = values
        bounds = exact_intervals(sums, np.ones(images), np.zeros(len(counts)), (-1.0, 1.0))
        found = coverage(float(levels @ shares), *bounds)
        kept = len(counts) / times  # beyond, the bootstrap takes over; count those as held
        return {key: value * kept for key, value in found.items()} | {"coverage": 1 - (1 - found["coverage"]) * kept}

    tried = []
    for _ in range(num_tries):
        images = int(rng.choice([5, 20, 50, 200, 1000]))
        levels = np.unique(rng.integers(-CAPTIONS, CAPTIONS + 1, rng.integers(1, 7))) / CAPTIONS
        expected = rng.uniform(0.3, min(16, images)) * rng.dirichlet(np.full(len(levels), 0.5))
        found = try_out(images, levels, expected / images * 0.999, 200)
        tried.append((max(found["all_above"], found["all_below"]), images, levels, expected / images * 0.999))
    tried.sort(key=lambda item: -item[0])
    for _, images, levels, shares in tried[:5]:
        found = try_out(images, levels, shares, num)
        yield {
            "of": "few",
            "images": images,
            "levels": levels.tolist(),
            "shares": shares.tolist(),
            "method": "exact",
            **found,
        }


def of_recovery(num: int, num_images: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """The share of a loss that a repair recovers."""
    draws = Draws(np.arange(num_images))
    for lossy, repaired, harmed in (
        (0.03, 0.5, 0.0),
        (0.05, 0.3, 0.005),
        (0.1, 0.9, 0.0),
        (0.1, 1.0, 0.0),
        (0.3, 0.5, 0.02),
    ):
        whole = hits(0.7, 0.3, num_images, num, rng)
        lost = rng.binomial(whole, 0.4) * (rng.random(whole.shape) < lossy)
        gained = rng.binomial(lost, repaired) - rng.binomial(whole - lost, harmed)
        truth = repaired - harmed * (1 - 0.4 * lossy) / (0.4 * lossy)
        damaged = (whole - lost) / CAPTIONS
        found = [
            recovery(damaged[:, n] + gained[:, n] / CAPTIONS, damaged[:, n], whole[:, n] / CAPTIONS, draws)
            for n in range(num)
        ]
        low, high = (np.array([getattr(estimate, end) for estimate in found]) for end in ("low", "high"))
        is_known = np.isfinite(low)
        row = {"of": "recovery", "lossy": lossy, "repaired": repaired, "harmed": harmed, "method": "bootstrap"}
        row["known"] = float(is_known.mean())
        yield row | (coverage(truth, low[is_known], high[is_known]) if is_known.any() else {})


def of_quantiles(num: int, num_images: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Median ranks, and the 5th percentile of the share of right answers that are found."""
    draws = Draws(np.repeat(np.arange(num_images), CAPTIONS))
    # hard images have large ranks: geometric ranks with a mean of their own for each image
    rank_tables = {
        "median rank, hard": (0.5, lambda ease: rng.geometric(0.02 + 0.1 * ease)),
        "median rank, easy": (0.5, lambda ease: rng.geometric(0.2 + 0.5 * ease)),
        "5th percentile": (0.05, lambda ease: rng.binomial(10, 0.5 + 0.4 * ease) / 10),
        "5th percentile, smooth": (0.05, lambda ease: ease + rng.normal(size=ease.shape)),
    }
    for name, (share, values_of) in rank_tables.items():

        def sample(images: int, values_of: Callable = values_of) -> np.ndarray:
            return values_of(np.repeat(rng.random(images), CAPTIONS))

        truth = float(np.quantile(sample(1_000_000), share, method="inverted_cdf"))
        found = [percentile(sample(num_images), share, draws) for _ in range(num)]
        low, high = (np.array([getattr(estimate, end) for estimate in found]) for end in ("low", "high"))
        yield {"of": "quantile", "what": name, "truth": truth, "method": "bootstrap", **coverage(truth, low, high)}


def of_fronts(num: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """The speed at a loss, from fronts of several conditions with noise in both."""
    num_draws = 1000
    for conditions in (4, 12, 30):
        for noise in (0.001, 0.002, 0.004):
            speeds = np.geomspace(1, 3, conditions)
            losses = 0.02 * (speeds - 1) ** 2
            for max_loss in (0.005, 0.01, 0.02):
                truth = front_speeds(losses[:, None], speeds[:, None], max_loss)[0]
                ends = []
                for _ in range(num):
                    seen = _noisy(losses[:, None], speeds[:, None], noise, 1, rng)
                    again = _noisy(*seen, noise, num_draws, rng, losses[:, None])
                    found = speed_at_loss(*again, max_loss)
                    ends.append((found.low, found.high) if found else (np.nan, np.nan))
                row = {"of": "front", "conditions": conditions, "noise": noise, "max_loss": max_loss}
                yield row | {"method": "bootstrap", **coverage(float(truth), *np.array(ends).T)}


def _noisy(losses, speeds, noise, num, rng, scale=None):
    """Losses and speeds [conditions, num] with noise; half of that in losses is common to all but the baseline."""
    is_other = (np.arange(len(losses)) > 0)[:, None]
    spread = noise * np.sqrt((losses if scale is None else scale) / 0.02 + 0.2) * is_other
    common, own = rng.normal(size=(1, num)), rng.normal(size=(len(losses), num))
    return losses + spread * (common + own) / 2**0.5, speeds * np.exp(0.01 * is_other * rng.normal(size=own.shape))


def of_power(num: int, num_images: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """How often a loss as large as `detectable_loss` says is shown: the target is 80 %."""
    draws = Draws(np.arange(num_images))
    for differing, size in ((0, 5), (3, 1), (8, 2), (15, 1), (40, 1), (100, 2)):
        sample = np.zeros(num_images)
        sample[:differing] = np.where(np.arange(differing) % 2, size, -size) / CAPTIONS
        loss = detectable_loss(sample)
        usual = rng.poisson(differing / num_images, (num_images, num)) * rng.choice([-size, size], (num_images, num))
        lost = rng.random((num_images, num)) < loss * CAPTIONS / size
        sums = np.clip(np.where(lost, -size, usual), -CAPTIONS, CAPTIONS)
        found = mean_intervals(sums / CAPTIONS, draws, -1.0)
        row = {"of": "power", "differing": differing, "size": size / CAPTIONS, "detectable": loss}
        yield row | {"method": "bootstrap", "shown": float((found.high < 0).mean())}


def rows_of_part(seed: int, place: int, part: Callable, *arguments: int) -> list[dict[str, Any]]:
    """All rows of a part, with random numbers of its own."""
    return list(part(*arguments, np.random.default_rng([seed, place])))


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Lowest, mean and highest coverage by what is estimated and how."""
    table = {}
    for row in rows:
        if "coverage" in row:
            table.setdefault(f"{row['of']}, {row['method']}", []).append(row["coverage"])
    return {
        name: {"lowest": min(v), "mean": float(np.mean(v)), "highest": max(v), "num": len(v)}
        for name, v in table.items()
    }


def main() -> None:
    """Run all parts, print them, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    num, images, rows = args.repetitions, args.images, []
    parts = [
        (of_differences, num, images),
        (of_means, num, images),
        (of_exact, 2 * num, 60),
        (of_quantiles, num // 4, images),
        (of_recovery, num // 4, images),
        (of_fronts, num // 4),
        (of_power, num // 2, images),
    ]
    with ProcessPoolExecutor(args.jobs) as pool:
        for future in [pool.submit(rows_of_part, args.seed, place, *part) for place, part in enumerate(parts)]:
            for row in future.result():
                print(json.dumps(row), flush=True)
                rows.append(row)
    results = {"repetitions": num, "images": args.images, "captions": CAPTIONS, "summary": summary(rows), "rows": rows}
    print(json.dumps(results["summary"], indent=1))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
