"""Side-by-side timing of image towers. Defines `images_per_second` for the whole project."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from pipeline.model.device import DTYPES
from pipeline.model.encode import Encoder, compile_tower
from pipeline.model.load import LoadedModel

ROUNDS = 7

K = TypeVar("K", bound=Hashable)
"""What conditions are known by: names, or places in a list."""


def images_per_second(
    towers: Mapping[K, tuple[Encoder, np.ndarray]],
    batch_size: int,
    rounds: int = ROUNDS,
    on_round: Callable[[int], None] = lambda number: None,
) -> dict[K, list[float]]:
    """Time the image towers alone on uint8 pixels already in memory, with interleaved conditions.

    Args:
        towers: An encoder and its pixels [N, H, W, 3], by name.
        batch_size: Images per forward pass.
        rounds: Rounds to count, after one warm-up round.
        on_round: Called after each round with the number of rounds that count so far.

    Returns:
        Images per second in each counted round, by name.
    """

    def run(encoder: Encoder, pixels_NHWC: np.ndarray) -> None:
        for start in range(0, len(pixels_NHWC), batch_size):
            encoder.encode(pixels_NHWC[start : start + batch_size])  # returns numpy, so the device has finished

    calls = {name: partial(run, *tower) for name, tower in towers.items()}
    seconds = interleaved_seconds(calls, rounds, on_round=on_round)
    return {name: [len(towers[name][1]) / value for value in values] for name, values in seconds.items()}


def interleaved_seconds(
    calls: Mapping[K, Callable[[], object]],
    rounds: int = ROUNDS,
    device: str = "cpu",
    on_round: Callable[[int], None] = lambda number: None,
) -> dict[K, list[float]]:
    """Seconds of each call in each round.

    A round makes every call once, so that drift in machine speed affects all of them equally; every other round
    reverses the order. A first round is discarded. GPU time is measured between two events on its stream. `on_round`
    is called after each round with the number of rounds that count so far.
    """
    seconds: dict[K, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        found = round_seconds(calls, device, is_reversed=number % 2 == 1)
        for name, elapsed_s in found.items():
            if number > 0:
                seconds[name].append(elapsed_s)
        on_round(number)
    return seconds


def round_seconds(
    calls: Mapping[K, Callable[[], object]], device: str = "cpu", *, is_reversed: bool = False
) -> dict[K, float]:
    """Seconds of each call in one round, in the order in which they ran."""
    timed = _seconds_on_gpu if device == "cuda" else _seconds_on_cpu
    return {name: timed(calls[name]) for name in (reversed(list(calls)) if is_reversed else calls)}


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """Peak memory of the allocations of a call; earlier allocations do not count."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    # only these events list every allocation and release: signed bytes, to be sorted by time
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return int(held.max(initial=0))


def tower_call(encoder: Encoder, pixels_BHWC: np.ndarray) -> Callable[[], object]:
    """A call of the image tower alone, on uint8 pixels already on its device."""
    pixels = torch.from_numpy(pixels_BHWC).to(encoder.device)
    return lambda: encoder.features(pixels)


def open_clip_call(loaded: LoadedModel, pixels_BHWC: np.ndarray, is_compiled: bool) -> Callable[[], object]:
    """A call of the same model as open_clip's users make it: on images normalised beforehand, channels first."""
    images = torch.from_numpy(pixels_BHWC).to(loaded.device).permute(0, 3, 1, 2).contiguous()
    images = ((images.float() / 255 - 0.5) / 0.25).to(DTYPES[loaded.spec.precision])
    if is_compiled:
        compile_tower(loaded)

    @torch.inference_mode()
    def call() -> torch.Tensor:
        return loaded.clip.encode_image(images)

    return call


def median_rates(rates: Mapping[K, list[float]]) -> dict[K, float]:
    """Median images per second by name."""
    return {name: statistics.median(values) for name, values in rates.items()}


def median_speedup(rates: Mapping[K, list[float]], name: K, baseline: K) -> float:
    """Median over rounds of the speed ratio to the baseline in the same round."""
    return statistics.median(a / b for a, b in zip(rates[name], rates[baseline], strict=True))


def _seconds_on_cpu(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _seconds_on_gpu(call: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000
