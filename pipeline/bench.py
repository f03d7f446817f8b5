"""Side-by-side timing of image towers. What `images_per_second` means everywhere in this project."""

import statistics
import time
from collections.abc import Mapping

import numpy as np

from pipeline.encode import Encoder

ROUNDS = 7


def images_per_second(
    encoders: Mapping[str, Encoder], pixels_NHWC: np.ndarray, batch_size: int, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Time the image tower alone on uint8 pixels already in memory, conditions interleaved.

    One round runs every encoder once over all pixels, so that a machine whose speed drifts treats them alike; the
    order is reversed in every other round. A first round is thrown away.

    Returns:
        Images per second of each counted round, by name.
    """
    rates: dict[str, list[float]] = {name: [] for name in encoders}
    batches = [pixels_NHWC[start : start + batch_size] for start in range(0, len(pixels_NHWC), batch_size)]
    for number in range(rounds + 1):
        names = list(encoders) if number % 2 == 0 else list(reversed(encoders))
        for name in names:
            started = time.perf_counter()
            for batch in batches:
                encoders[name].encode(batch)  # returns numpy, so the device has finished
            elapsed_s = time.perf_counter() - started
            if number > 0:
                rates[name].append(len(pixels_NHWC) / elapsed_s)
    return rates


def median_rates(rates: Mapping[str, list[float]]) -> dict[str, float]:
    """Median images per second by name."""
    return {name: statistics.median(values) for name, values in rates.items()}


def median_speedup(rates: Mapping[str, list[float]], name: str, baseline: str) -> float:
    """Median over rounds of the ratio to the baseline in the same round."""
    return statistics.median(a / b for a, b in zip(rates[name], rates[baseline], strict=True))
