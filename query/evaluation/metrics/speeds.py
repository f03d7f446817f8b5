"""How fast each condition is, from timed rounds. Ratios are taken within a round only.

Shapes: R rounds, D draws.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from query.evaluation.raw.timings import Round
from query.evaluation.results import Estimate, Speed
from query.evaluation.statistics.ratios import rate, speedup, speedup_draws


@dataclass(frozen=True)
class Timed:
    """A condition in the rounds in which it was timed together with the baseline."""

    rounds: tuple[int, ...]
    """Which rounds, as places in the list of all."""
    seconds_R: np.ndarray
    """Seconds for each image or query, in each of them."""
    baseline_R: np.ndarray
    """The same of the baseline."""

    @property
    def speedup(self) -> Estimate:
        """Against the baseline."""
        return speedup(self.seconds_R, self.baseline_R)


def timed_with(rounds: Sequence[Round], baseline: str) -> dict[str, Timed]:
    """Every condition that was timed in the same rounds as the baseline, by key."""
    found: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for place, timed in enumerate(rounds):
        rows = zip(timed.keys, timed.seconds, timed.num_items, strict=True)
        seconds = {key: elapsed_s / num_items for key, elapsed_s, num_items in rows}
        if baseline in seconds:
            for key, each in seconds.items():
                found[key].append((place, each, seconds[baseline]))
    return {
        key: Timed(
            tuple(place for place, *_ in rows), *(np.array(column) for column in list(zip(*rows, strict=True))[1:])
        )
        for key, rows in found.items()
    }


def speed_of(timed: Timed, gmacs: float, baseline_gmacs: float) -> Speed:
    """Images per second and the speed-up, with intervals over the rounds, beside what the multiply-adds promise."""
    return Speed(
        images_per_second=rate(timed.seconds_R, 1),
        speedup=timed.speedup,
        theoretical=baseline_gmacs / gmacs,
        num_rounds=len(timed.rounds),
    )


def draws_of(timed: dict[str, Timed]) -> dict[str, np.ndarray]:
    """Samples of the speed-up of each condition [D]; those of the same rounds share the noise of their baseline."""
    together: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for key, one in timed.items():
        together[one.rounds].append(key)
    found: dict[str, np.ndarray] = {}
    for seed, keys in enumerate(together.values()):
        seconds_CR = np.stack([timed[key].seconds_R for key in keys])
        samples_CD = speedup_draws(seconds_CR, timed[keys[0]].baseline_R, seed=seed)
        found |= dict(zip(keys, samples_CD, strict=True))
    return found


def milliseconds(timed: Sequence[Round], key: str) -> Estimate | None:
    """Time of one query of an index condition, in milliseconds; None if it was not timed."""
    seconds = [
        elapsed_s / num_items
        for one in timed
        for name, elapsed_s, num_items in zip(one.keys, one.seconds, one.num_items, strict=True)
        if name == key
    ]
    if not seconds:
        return None
    found = rate(np.array(seconds), 1)  # per second
    return Estimate(1e3 / found.value, 1e3 / found.high, 1e3 / found.low, found.method)
