"""Kill `clipsieve embed` repeatedly at random moments, and compare the result with an undisturbed run.

    python tests/drills/kill.py --kills 200

Every kill is a real SIGKILL: of the driver only, one encode worker, one decoder, the raylet, or the driver with all its
processes. After each kill the same command runs again, and is killed again, until it finishes. Then every part must be
identical to the byte, `clipsieve verify` must find nothing, and no process may be left over.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ENDING = ("driver", "all", "raylet")
"""Kills that end a run: every other run gets one of them, at any moment from its start."""

PASSING = {"worker": 1, "decoder": 2}
"""Kills that a run survives, with their relative weights: the other runs get many of these each."""

TITLES = {
    "worker": ("ray::EncodeWorker",),
    "decoder": ("ray::_decode_task", "ray::IDLE"),  # an idle decoder's title between two tasks
    "raylet": ("raylet",),
}
KILLS_PER_STORE = 8
PATIENCE_S = 300.0


@dataclass
class Result:
    """Result of a drill: kills by victim, runs by exit code, compared stores, processes that outlived their driver."""

    kills: Counter = field(default_factory=Counter)
    exits: Counter = field(default_factory=Counter)
    num_stores: int = 0
    num_orphans: int = 0
    last_exit: int = 0


def drill(
    command: list[str],
    folder: Path,
    num_kills: int,
    seed: int,
    log=lambda text: None,
    kills_per_store: int = KILLS_PER_STORE,
) -> Result:
    """Run and kill `command --out STORE` until there have been `num_kills` kills.

    Args:
        command: `clipsieve embed SOURCE ...` without --out.
        folder: Scratch folder.
        num_kills: Number of real kills.
        seed: Seed for the choice of victims and moments.
        log: Called with a line of text for every event.
        kills_per_store: Kills after which to compare the store and start a new one.

    Raises:
        AssertionError: If a store differs from the undisturbed one, or is incomplete.
    """
    chance, result = random.Random(seed), Result()
    started = time.monotonic()
    reference = folder / "reference"
    assert subprocess.run([*command, "--out", reference], capture_output=True).returncode == 0
    duration_s = time.monotonic() - started
    expected = _parts(reference)
    log(f"undisturbed run: {len(expected)} parts in {duration_s:.1f} s")
    while sum(result.kills.values()) < num_kills:
        store = folder / "killed"
        shutil.rmtree(store, ignore_errors=True)
        left = min(kills_per_store, num_kills - sum(result.kills.values()))
        while True:
            left -= _run([*command, "--out", str(store)], duration_s, left, chance, result, log)
            if result.last_exit == 0:
                break
        assert _parts(store) == expected, "parts differ"
        assert not list(store.rglob("*.tmp")), "half-written files are left"
        verified = subprocess.run([command[0], "verify", store], capture_output=True, text=True)
        assert verified.returncode == 0, verified.stderr
        result.num_stores += 1
        log(f"store {result.num_stores} is identical to the byte after {dict(result.kills)}")
    return result


def _run(command: list[str], duration_s: float, left: int, chance: random.Random, result: Result, log) -> int:
    """Run once, with kills until one of them ends the run or none are left; returns the number of kills."""
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    started, done, family = time.monotonic(), 0, []
    number = sum(result.exits.values())
    is_to_end = number % 2 == 0
    pause_s = chance.uniform(0, 0.8 if is_to_end else 0.3) * duration_s
    while done < left:
        try:
            driver.wait(pause_s)
            break
        except subprocess.TimeoutExpired:
            pass
        [passing] = chance.choices(list(PASSING), PASSING.values())
        victim = ENDING[number // 2 % len(ENDING)] if is_to_end else passing
        family = descendants(driver.pid)
        hit = _kill(driver, victim, family, chance)
        log(f"{victim} after {time.monotonic() - started:.1f} s: {'killed' if hit else 'not found'}")
        done += hit
        result.kills[victim] += hit
        if hit and is_to_end:
            break
        pause_s = chance.uniform(0.2, 2.5)
    family = family or descendants(driver.pid)
    try:
        _, errors = driver.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        for pid in [*descendants(driver.pid), driver.pid]:
            _end(pid)
        raise AssertionError(f"the run did not finish within {PATIENCE_S:.0f} s") from None
    result.last_exit = driver.returncode
    result.exits[driver.returncode] += 1
    if driver.returncode > 0:
        log(f"exit {driver.returncode}: {errors.decode().splitlines()[-1:]}")
    result.num_orphans += _reap(family)
    return done


def _kill(driver: subprocess.Popen, victim: str, family: list[int], chance: random.Random) -> bool:
    if victim == "driver":
        pids = [driver.pid]
    elif victim == "all":
        pids = [driver.pid, *family]
    else:
        named = [pid for pid in family if _program(pid).startswith(TITLES[victim])]
        pids = [chance.choice(named)] if named else []
    for pid in pids:
        _end(pid)
    return bool(pids)


def _reap(family: list[int]) -> int:
    """Wait for workers that outlive their driver, then kill the rest; returns the number of workers killed."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(_is_worker(pid) for pid in family):
        time.sleep(0.2)
    num_workers = sum(_is_worker(pid) for pid in family)
    for pid in family:  # Ray's own agents take a minute to exit
        if title(pid):
            _end(pid)
    return num_workers


def _is_worker(pid: int) -> bool:
    return _program(pid).startswith((*TITLES["worker"], *TITLES["decoder"]))


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def descendants(root: int) -> list[int]:
    """All descendants of a process."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = [], {root}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new}
        found += sorted(new)
    return found


def title(pid: int) -> str:
    """Command line of a process; empty if it is gone or a zombie."""
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return ""
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _program(pid: int) -> str:
    """File name of a process's program, or the title that a Ray worker sets for itself."""
    first = title(pid).partition(" ")[0]
    return first if first.startswith("ray::") else Path(first).name


def _parts(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((store / "embeddings").glob("part-*.parquet"))}


def collection(folder: Path, num_images: int) -> Path:
    """Make a folder of images large enough for a long run, including damaged ones and copies."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(num_images):
        path = folder / f"{number:04d}.{'png' if number % 4 == 0 else 'jpg'}"
        if number % 10 == 3:
            path.write_bytes(b"not an image")
        elif number >= 40:
            shutil.copy(next(folder.glob(f"{number % 40:04d}.*")), folder / f"{number:04d}.jpg")
        else:
            noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC).save(path)
    return folder


def _print(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Run the drill on generated images with the built-in model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--clipsieve", default=str(Path(sys.executable).with_name("clipsieve")))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipsieve-drill-") as scratch:
        photos = collection(Path(scratch) / "photos", arguments.images)
        command = [arguments.clipsieve, "embed", str(photos), "--shard-size", "50", "--batch-size", "8"]
        result = drill(command, Path(scratch), arguments.kills, arguments.seed, _print, 20)
    print(f"kills {dict(result.kills)}; exits {dict(result.exits)}")
    print(f"{result.num_stores} stores identical to the byte; {result.num_orphans} processes had to be killed")


if __name__ == "__main__":
    main()
