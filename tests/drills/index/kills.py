"""Kill `clipsieve index` at random moments, and compare the index with that of an undisturbed run.

    python tests/drills/index/kills.py STORE --recipe IVF2000,PQ256x4fs --kills 20 --json kills.json

Every kill is a real SIGKILL, at any moment of the run. After each, the same command runs again, and may be killed
again. When it has finished, every file of the index must have the bytes of the undisturbed one, except the manifest,
which holds times. Every few kills, a fresh copy of the store is taken. STORE itself stays as it is.

Of each kill, the step is told by the files that exist, and the work lost by the newest of them: nothing that was done
before it was written is done again.
"""

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from indexer.building.lists import ASSIGNED_FILE, CENTROIDS_FILE, TRAINED_FILE
from indexer.building.plan import FOLDER, read_plan
from tests.drills.index.processes import CLIPSIEVE, environment

LEAST_S = 3.0
"""A run may go on for so long at least, so that the next kill does not find it where it was."""
OTHERS = ("manifest.json", "lock.json", "calibration.json")


def main() -> None:
    arguments = parse_arguments()
    chance = random.Random(arguments.seed)
    arguments.work.mkdir(parents=True, exist_ok=True)
    reference = copied(arguments, "reference")
    started = time.monotonic()
    assert command(arguments, reference).wait() == 0, "the undisturbed run failed"
    undisturbed_s = time.monotonic() - started
    expected = hashes(reference)
    print(f"undisturbed: {undisturbed_s:.1f} s, {list(expected)}", flush=True)
    results = {"recipe": arguments.recipe, "undisturbed_s": undisturbed_s, "kills": [], "indexes": []}
    while len(results["kills"]) < arguments.kills:
        store = copied(arguments, "killed")
        left = min(arguments.kills_per_index, arguments.kills - len(results["kills"]))
        kills, seconds = killed_until_done(arguments, store, undisturbed_s, left, chance)
        results["kills"] += kills
        is_same = hashes(store) == expected
        results["indexes"].append({"kills": len(kills), "seconds": seconds, "same_bytes": is_same})
        print(f"{results['indexes'][-1]}", flush=True)
        assert is_same, "the bytes differ"
    lost = defaultdict(list)
    for kill in results["kills"]:
        lost[kill["step"]].append(kill["lost_s"])
    results["most_lost_s"] = {step: max(seconds) for step, seconds in lost.items()}
    results["kills_by_step"] = {step: len(seconds) for step, seconds in lost.items()}
    print(results["kills_by_step"], results["most_lost_s"])
    arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills-per-index", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clipsieve-kills")
    parser.add_argument("--json", type=Path, default=Path("kills.json"))
    return parser.parse_args()


def copied(arguments: argparse.Namespace, name: str) -> Path:
    """A copy of the store without an index."""
    folder = arguments.work / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(arguments.store, folder, ignore=shutil.ignore_patterns("index"))
    return folder


def command(arguments: argparse.Namespace, store: Path) -> subprocess.Popen:
    """Start the command."""
    words = [*CLIPSIEVE, "index", str(store), "--recipe", arguments.recipe, "--no-proof"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())


def hashes(store: Path) -> dict[str, str]:
    """SHA-256 of the files of the index that hold no times."""
    found = sorted(path for path in (store / "index").iterdir() if path.is_file() and path.name not in OTHERS)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def killed_until_done(
    arguments: argparse.Namespace, store: Path, undisturbed_s: float, num_kills: int, chance: random.Random
) -> tuple[list[dict], float]:
    """Run until the index is there, killed at most so often; returns the kills and the seconds of all runs."""
    kills, begun = [], time.monotonic()
    while True:
        process, started = command(arguments, store), time.monotonic()
        try:
            wait_for_work(store, process)
            left_s = max(LEAST_S, undisturbed_s - sum(kill["kept_s"] for kill in kills))
            process.wait(chance.uniform(0, left_s) if len(kills) < num_kills else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills.append(examined(store, time.monotonic() - started))
            print(kills[-1], flush=True)
            continue
        assert process.returncode == 0, f"exit {process.returncode}"
        return kills, time.monotonic() - begun


def wait_for_work(store: Path, process: subprocess.Popen) -> None:
    """Wait until a run has the lock of the index: kills should not fall into its imports."""
    lock = store / "index" / "lock.json"
    while process.poll() is None and f'"pid": {process.pid}' not in (lock.read_text() if lock.exists() else ""):
        time.sleep(0.01)


def examined(store: Path, ran_s: float) -> dict:
    """What a killed build leaves: its step, the rows that are done, and how long ago the newest file was written."""
    folder = store / "index"
    state = folder / FOLDER
    plan, now = read_plan(state), time.time()
    there = state.iterdir() if state.exists() else ()  # it is gone once the index is complete
    kept = [path for path in there if not path.name.startswith(".") and not path.name.endswith(".tmp")]
    lost_s = now - max(path.stat().st_mtime for path in kept) if kept else ran_s
    rows = json.loads((state / "rows.json").read_text())["parts"] if (state / "rows.json").exists() else {}
    assigned = json.loads((state / ASSIGNED_FILE).read_text())["num_rows"] if (state / ASSIGNED_FILE).exists() else 0
    num_rows = json.loads((state / "rows.json").read_text())["files"]["num_rows"] if rows else 0
    if plan is None:
        step = "plan or end"
    elif len(rows) < len(plan.parts):
        step = "rows"
    elif not (state / TRAINED_FILE).exists():
        step = "k-means or codebook" if (state / CENTROIDS_FILE).exists() else "first iteration of k-means"
    else:
        step = "lists" if assigned < num_rows else "codes"
    lost_s = min(lost_s, ran_s)
    return {
        "step": step,
        "shards": len(rows),
        "assigned": assigned,
        "ran_s": round(ran_s, 2),
        "lost_s": round(lost_s, 2),
        "kept_s": round(ran_s - lost_s, 2),
    }


if __name__ == "__main__":
    main()
