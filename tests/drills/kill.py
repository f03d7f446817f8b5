"""Kill `clipsieve embed` at random moments, over and over, and compare what it leaves with a run that was left alone.

    python tests/drills/kill.py --kills 200

Every kill is a real SIGKILL: of the driver alone, of one encode worker, of one decoder, of the raylet, of the driver
with all its processes. After each the same command is run again, and killed again, until it is through; then every
part must be equal to the byte, `clipsieve verify` must find nothing, and no process may be left over.
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
"""Kills that end a run: every other run meets one of them, at any moment from its start on."""

PASSING = {"worker": 1, "decoder": 2}
"""Kills that a run survives, and how often one rather than the other: what the other runs meet, many of them each."""

TITLES = {
    "worker": ("ray::EncodeWorker",),
    "decoder": ("ray::_decode_task", "ray::IDLE"),  # between two tasks it calls itself idle
    "raylet": ("raylet",),
}
KILLS_PER_STORE = 8
PATIENCE_S = 300.0


@dataclass
class Result:
    """What a drill did: kills by victim, runs by exit code, stores compared, processes that outlived their driver."""

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
    """Kill `command --out STORE` until `num_kills` are done.

    Args:
        command: `clipsieve embed SOURCE ...` without --out.
        folder: Scratch.
        num_kills: Real kills to do.
        seed: Decides whom and when.
        log: Told what happens.
        kills_per_store: Kills after which a store is compared and a new one is begun.

    Raises:
        AssertionError: If a store differs from the one that was left alone, or is not whole.
    """
    chance, result = random.Random(seed), Result()
    started = time.monotonic()
    reference = folder / "reference"
    assert subprocess.run([*command, "--out", reference], capture_output=True).returncode == 0
    duration_s = time.monotonic() - started
    expected = _parts(reference)
    log(f"left alone: {len(expected)} parts in {duration_s:.1f} s")
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
        log(f"store {result.num_stores} is equal to the byte after {dict(result.kills)}")
    return result


def _run(command: list[str], duration_s: float, left: int, chance: random.Random, result: Result, log) -> int:
    """One run, killed here and there until one of the kills ends it, or none are left; the number of kills done."""
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
        log(f"{victim} after {time.monotonic() - started:.1f} s: {'killed' if hit else 'none was there'}")
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
        raise AssertionError(f"the run did not end within {PATIENCE_S:.0f} s") from None
    result.last_exit = driver.returncode
    result.exits[driver.returncode] += 1
    if driver.returncode > 0:
        log(f"exit {driver.returncode}: {errors.decode().splitlines()[-1:]}")
    result.num_orphans += _bury(family)
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


def _bury(family: list[int]) -> int:
    """Wait for workers that outlive their driver to end; end what does not. How many workers those were."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(_is_worker(pid) for pid in family):
        time.sleep(0.2)
    num_workers = sum(_is_worker(pid) for pid in family)
    for pid in family:  # Ray's own agents take a minute to notice
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
    """Processes under a process, all generations."""
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
    """Command line of a process; empty if it is gone, or only its exit status is left."""
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return ""
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _program(pid: int) -> str:
    """File name of a process's program; Ray's workers call themselves by what they do."""
    first = title(pid).partition(" ")[0]
    return first if first.startswith("ray::") else Path(first).name


def _parts(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((store / "embeddings").glob("part-*.parquet"))}


def collection(folder: Path, num_images: int) -> Path:
    """A folder of photographs large enough for a run to last, with damaged ones among them; some are equal."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(num_images):
        path = folder / f"{number:04d}.{'png' if number % 4 == 0 else 'jpg'}"
        if number % 10 == 3:
            path.write_bytes(b"no image")
        elif number >= 40:
            shutil.copy(next(folder.glob(f"{number % 40:04d}.*")), folder / f"{number:04d}.jpg")
        else:
            noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC).save(path)
    return folder


def _print(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Run the drill on generated photographs with the embedded model."""
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
    print(f"{result.num_stores} stores equal to the byte; {result.num_orphans} processes had to be ended")


if __name__ == "__main__":
    main()
