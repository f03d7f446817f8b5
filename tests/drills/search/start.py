"""How long `clipsieve search STORE TEXT` takes as a whole process, against another checkout, one after the other.

    python tests/drills/search/start.py STORE --other ../clipsieve-before --rounds 9 --json start.json

Both read the same store and model from warm files. Three conditions take turns in every round: the other checkout,
this one with an empty cache directory (the first search with a model), and this one afterwards. `cpu` is the time of
all threads, which other load on the machine disturbs less than the time on the clock. Every text is another one.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.machine import cpu_name, num_cores

HERE = Path(__file__).resolve().parents[3]
OTHER, FIRST, LATER = "other checkout", "first search", "later searches"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="an indexed store")
    parser.add_argument("--other", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        one_round(-1, arguments, cache)  # warms up
        rounds = [one_round(number, arguments, cache) for number in range(arguments.rounds)]
    result = {
        "command": f"python tests/drills/search/start.py STORE --other CHECKOUT --rounds {arguments.rounds}",
        "hardware": f"{num_cores()} cores of {cpu_name()}",
        "python": platform.python_version(),
        "commits": {"this": commit_of(HERE), "other": commit_of(arguments.other)},
        "rounds": rounds,
        "medians": {name: medians([one[name] for one in rounds]) for name in (OTHER, FIRST, LATER)},
        "ratios": {
            f"{name} / {OTHER}": medians(
                [{key: one[name][key] / one[OTHER][key] for key in one[name]} for one in rounds]
            )
            for name in (FIRST, LATER)
        },
    }
    print(json.dumps({key: result[key] for key in ("medians", "ratios")}, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def one_round(number: int, arguments: argparse.Namespace, cache: Path) -> dict[str, dict[str, float]]:
    """Search once under each condition; all must find the same images."""
    shutil.rmtree(cache, ignore_errors=True)
    text = f"a photo of {number} dogs in the snow"
    conditions = ((OTHER, arguments.other), (FIRST, HERE), (LATER, HERE))
    found = {name: search(checkout, arguments.store, text, cache) for name, checkout in conditions}
    keys = {name: keys for name, (_, keys) in found.items()}
    assert len(set(keys.values())) == 1, keys
    print(number, {name: seconds for name, (seconds, _) in found.items()}, file=sys.stderr)
    return {name: seconds for name, (seconds, _) in found.items()}


def search(checkout: Path, store: Path, text: str, cache: Path) -> tuple[dict[str, float], tuple[str, ...]]:
    """Seconds on the clock and of CPU time that a search takes, and the keys of its hits."""
    command = [sys.executable, "-m", "query.cli", "search", str(store.resolve()), text, "--json"]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve()), "CLIPSIEVE_CACHE": str(cache)}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=True)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(wall_s, 3), "cpu_s": round(cpu_s, 3)}, tuple(keys_in(json.loads(run.stdout)))


def keys_in(answer: object) -> list[str]:
    """The keys of the hits in a JSON answer, of this version or an earlier one."""
    hits = answer["hits"] if isinstance(answer, dict) else answer[0]["hits"]
    return [hit["key"] for hit in hits]


def medians(values: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(one[key] for one in values), 3) for key in values[0]}


def commit_of(checkout: Path) -> str:
    run = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=False)
    return run.stdout.strip()


if __name__ == "__main__":
    main()
