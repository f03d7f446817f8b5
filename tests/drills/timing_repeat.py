"""Do two runs of the timings agree within their intervals, on a machine with other work coming and going?

    python tests/drills/timing_repeat.py --json timing.json

Each run is a process of its own that times policies of the built-in model in interleaved rounds, as a sweep does. For
each two runs and each policy, the interval of the difference of their log-ratios should hold 0: the target is 90 %.
Meanwhile other processes work for a few seconds, rest, and work again. The baseline also runs before and after each
policy, so that ways to pair it can be compared on the same timings.
"""

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from query.evaluation.results import Estimate
from query.evaluation.statistics.ratios import quotient, speedup

BASELINE = "none"
POLICIES = {"lossless": None, "fast": None, "balanced": None, "keep .9": 0.9, "keep .7": 0.7, "keep .5": 0.5}
POLICIES |= {"keep .3": 0.3, "keep .2": 0.2}
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
"""`cpu` counts only the time of the thread itself: like a machine with less other work. It needs one thread."""
PAIRINGS = {
    "once a round": "one baseline for all policies of a round, the first of the round (in every other round the last)",
    "both ends": "the geometric mean of the first and the last baseline of the round",
    "before and after": "the geometric mean of the baselines before and after the policy",
    "median of the round": "the median of all baselines of the round",
}


def time_once(path: Path, rounds: int, num_images: int, threads: int, clock: str) -> None:
    """Write the seconds of every call of one run, in order: [round, policy, seconds]."""
    import torch

    from pipeline.model.encode import Encoder, sharing_weights
    from pipeline.model.load import load_model
    from pipeline.model.pruning.policy import choose_policy
    from pipeline.model.spec import EMBEDDED, ModelSource

    torch.set_num_threads(threads)
    loaded = load_model(ModelSource(model=EMBEDDED), "fp32", "cpu")
    size = (num_images, loaded.spec.preprocess.height, loaded.spec.preprocess.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    encoders = {BASELINE: Encoder(sharing_weights(loaded), None)}
    for name, keep in POLICIES.items():
        policy = choose_policy(None, keep) if keep else choose_policy(name, None)
        encoders[name] = Encoder(sharing_weights(loaded), policy)

    now = CLOCKS[clock]

    def seconds(name: str) -> float:
        started = now()
        encoders[name].encode(pixels)
        return now() - started

    for name in encoders:
        seconds(name)
    calls = []
    for number in range(rounds):
        calls.append((number, BASELINE, seconds(BASELINE)))
        for name in list(POLICIES)[:: -1 if number % 2 else 1]:
            calls += [(number, name, seconds(name)), (number, BASELINE, seconds(BASELINE))]
    path.write_text(json.dumps(calls))


def disturb(seed: int) -> None:
    """Work and rest in turn, a few seconds each, until killed."""
    random.seed(seed)
    block = np.random.default_rng(0).normal(size=(300, 300))
    while True:
        until = time.monotonic() + random.uniform(1, 15)
        while time.monotonic() < until:
            block @ block
        time.sleep(random.uniform(1, 15))


def speedups(calls: list[tuple[int, str, float]], pairing: str, rounds: int) -> dict[str, Estimate]:
    """The speed-up of each policy with its interval, from the first rounds of one run."""
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in POLICIES}
    for number in range(rounds):
        own = [(name, elapsed_s) for place, name, elapsed_s in calls if place == number]
        baselines = [elapsed_s for name, elapsed_s in own if name == BASELINE]
        for place, (name, elapsed_s) in enumerate(own):
            if name == BASELINE:
                continue
            baseline_s = {
                "once a round": baselines[-1 if number % 2 else 0],
                "both ends": (baselines[0] * baselines[-1]) ** 0.5,
                "before and after": (own[place - 1][1] * own[place + 1][1]) ** 0.5,
                "median of the round": float(np.median(baselines)),
            }[pairing]
            pairs[name].append((elapsed_s, baseline_s))
    return {name: speedup(*np.array(rows).T) for name, rows in pairs.items()}


def agreement(runs: list[list[tuple[int, str, float]]], pairing: str, rounds: int) -> dict[str, Any]:
    """Share of policies, over all pairs of runs, in which the interval of the quotient of speed-ups holds 1."""
    found = [speedups(calls, pairing, rounds) for calls in runs]
    quotients = [quotient(one[name], other[name]) for one, other in combinations(found, 2) for name in POLICIES]
    half_widths = [np.log(estimate.high / estimate.low) / 2 for run in found for estimate in run.values()]
    return {
        "pairing": pairing,
        "rounds": rounds,
        "holds": float(np.mean([estimate.low <= 1 <= estimate.high for estimate in quotients])),
        "half_width": float(np.median(half_widths)),
        "spread": float(np.median([abs(np.log(estimate.value)) for estimate in quotients])),
        "num": len(quotients),
    }


def main() -> None:
    """Time, compare, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--others", type=int, default=2, help="processes that work and rest in turn")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        time_once(args.once, args.rounds, args.images, args.threads, args.clock)
        return
    others = [multiprocessing.Process(target=disturb, args=(seed,), daemon=True) for seed in range(args.others)]
    for process in others:
        process.start()
    runs, loads = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.runs):
            path = Path(folder) / f"{number}.json"
            own = ["--rounds", args.rounds, "--images", args.images, "--threads", args.threads]
            own += ["--clock", args.clock, "--once", path]
            subprocess.run([sys.executable, __file__, *map(str, own)], check=True)
            runs.append(json.loads(path.read_text()))
            loads.append(os.getloadavg()[0])
            print(f"run {number + 1} of {args.runs}, load {loads[-1]:.1f}", flush=True)
    for process in others:
        process.terminate()
    counts = sorted({5, 7, args.rounds})
    rows = [agreement(runs, pairing, count) for pairing in PAIRINGS for count in counts if count <= args.rounds]
    for row in rows:
        print(json.dumps(row))
    if args.json:
        results = {
            "clock": args.clock,
            "threads": args.threads,
            "others": args.others,
            "loads": loads,
            "pairings": PAIRINGS,
            "rows": rows,
        }
        args.json.write_text(json.dumps(results | {"runs": runs}) + "\n")


if __name__ == "__main__":
    main()
