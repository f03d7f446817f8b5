"""Embed a small and a large collection of generated images, and watch memory and rate throughout.

    python tests/drills/memory.py --json memory.json

Memory is anonymous resident memory (RssAnon, which excludes files and Ray's shared object store) of the driver, the
encode workers and the decoders: the largest of each kind, sampled every second. The rate of each tenth of the run is
also shown relative to a fixed workload (the probe) running alongside, because the machine's own speed drifts.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.measure.provenance import provenance

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.drills.kill import descendants, title

SHARD_SIZE = 2500
KINDS = {"ray::EncodeWorker": "encode worker", "ray::_decode_task": "decoder", "ray::IDLE": "decoder"}
PROBE_EVERY_S = 2.0


def generate(folder: Path, num_images: int) -> Path:
    """Write small JPEGs, all different, a thousand per folder."""
    random = np.random.default_rng(0)
    for number in range(num_images):
        parent = folder / f"{number // 1000:04d}"
        parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((96, 64), Image.Resampling.BILINEAR).save(parent / f"{number:07d}.jpg", quality=80)
    return folder


def watch(command: list[str]) -> dict:
    """Run a command; returns the peak memory by kind of process, and the probe's rate over time."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peaks: dict[str, int] = defaultdict(int)
    probes: list[tuple[float, float]] = []
    stop = threading.Event()

    def probe() -> None:
        block = np.random.default_rng(0).normal(size=(256, 256))
        while not stop.wait(PROBE_EVERY_S):
            started = time.thread_time(), time.perf_counter()
            for _ in range(20):
                block @ block
            probes.append((time.time(), 20 / (time.perf_counter() - started[1])))

    thread = threading.Thread(target=probe)
    thread.start()
    threading.Thread(target=process.stderr.read, daemon=True).start()
    while process.poll() is None:
        peaks["driver"] = max(peaks["driver"], _anonymous_bytes(process.pid))
        for pid in descendants(process.pid):
            kind = KINDS.get(title(pid).partition(" ")[0].partition(".")[0])
            if kind:
                peaks[kind] = max(peaks[kind], _anonymous_bytes(pid))
        time.sleep(1)
    stop.set()
    thread.join()
    assert process.returncode == 0, f"{command} failed with exit code {process.returncode}"
    return {"peaks": dict(peaks), "probes": probes}


def tenths(store: Path, probes: list[tuple[float, float]]) -> list[dict[str, float]]:
    """Images per second in each tenth of a run, absolute and relative to the probe's median rate in that time."""
    events = [json.loads(line) for line in (store / "events.jsonl").read_text().splitlines()]
    started = next(event for event in events if event["event"] == "run_started")
    commits = [event for event in events if event["event"] == "shard_committed"]
    moments = [_seconds(started), *(_seconds(event) for event in commits)]
    images = np.cumsum([0, *(event["num_images"] for event in commits)])
    marks = np.interp(np.linspace(0, images[-1], 11), images, moments)
    found = []
    for begin, end in pairwise(marks):
        beside = [rate for moment, rate in probes if begin <= moment < end]
        rate = images[-1] / 10 / (end - begin)
        found.append({"images_per_second": rate, "over_probe": rate / statistics.median(beside) if beside else None})
    return found


def _seconds(event: dict) -> float:
    from datetime import datetime

    return datetime.fromisoformat(event["time"]).timestamp()


def _anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def main() -> None:
    """Embed both collections with the built-in model, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--clipsieve", default=str(Path(sys.executable).with_name("clipsieve")))
    arguments = parser.parse_args()
    results = {"environment": {**provenance(), "command": f"python tests/drills/memory.py --images {arguments.images}"}}
    with tempfile.TemporaryDirectory(prefix="clipsieve-drill-") as scratch:
        for count in (arguments.few, arguments.images):
            photos, store = generate(Path(scratch) / "photos", count), Path(scratch) / "store"
            command = [arguments.clipsieve, "embed", str(photos), "--out", str(store), "--shard-size", str(SHARD_SIZE)]
            seen = watch(command)
            results[str(count)] = {
                "peak_bytes": seen["peaks"],
                "tenths": tenths(store, seen["probes"]),
                "last_run": json.loads((store / "stats.json").read_text())["last_run"],
            }
            for path in (photos, store):
                shutil.rmtree(path)
    few, many = (results[str(count)]["peak_bytes"] for count in (arguments.few, arguments.images))
    results["growth"] = {kind: many[kind] / few[kind] for kind in many}
    for kind, growth in results["growth"].items():
        print(f"{kind}: {few[kind] / 1e6:.0f} MB at {arguments.few:,}, {many[kind] / 1e6:.0f} MB ({growth:.3f}x)")
    for number, tenth in enumerate(results[str(arguments.images)]["tenths"], start=1):
        print(f"tenth {number}: {tenth['images_per_second']:.0f} images/s, relative to the probe {tenth['over_probe']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
