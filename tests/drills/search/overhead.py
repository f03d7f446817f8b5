"""What `Searcher` adds to a bare search of the index: one vector at a time, both in turns.

    python tests/drills/search/overhead.py STORE --json overhead.json

The queries are the shared text vectors. A search of `Searcher` reads all columns of its hits, and gives a table; `list`
turns it into objects as well. The overhead of a query is its time less that of the bare search of the same vector just
before or after, and so disturbed by other processes on the machine; the drill says how busy it was. `idle` is the same
with an index search that takes no time, which leaves the work of `Searcher` alone, with warm caches. `cpu` is the time
that the thread was running; other processes disturb it less.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pipeline.machine import cpu_name
from query import Searcher
from tests.drills.index.measure import K, real_vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    queries_QE = real_vectors()[2][: arguments.queries]
    with Searcher.open(arguments.store, device="cpu") as searcher:
        index = searcher.current[0].index
        ways: dict[str, Callable[[np.ndarray], object]] = {
            "bare": lambda query_E: index.find(query_E[None], K),
            "searcher": lambda query_E: searcher.search(vector=query_E, k=K),
            "listed": lambda query_E: list(searcher.search(vector=query_E, k=K)),
        }
        times, cpu = timed(ways, queries_QE)
        found = index.find(queries_QE[:1], K)
        index.find = lambda *_, **__: found
        idle, _ = timed(ways, queries_QE)
        results = {
            "store": arguments.store.name,
            "recipe": index.recipe.factory,
            "num_rows": index.num_rows,
            "num_queries": len(queries_QE),
            "cpu": cpu_name(),
            "load": os.getloadavg()[0],
            "ms": {way: percentiles(ms) for way, ms in times.items()},
            "overhead_ms": {way: percentiles(times[way] - times["bare"]) for way in ("searcher", "listed")},
            "cpu_overhead_ms": {way: percentiles(cpu[way] - cpu["bare"]) for way in ("searcher", "listed")},
            "idle_ms": {way: percentiles(idle[way] - idle["bare"]) for way in ("searcher", "listed")},
        }
    print(json.dumps(results, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def timed(
    ways: dict[str, Callable[[np.ndarray], object]], queries_QE: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Milliseconds of each query by way, and those of its thread; the ways of each query come in random order."""
    rng, times, cpu = np.random.default_rng(0), {}, {}
    for name, way in ways.items():
        times[name], cpu[name] = np.empty((2, len(queries_QE)))
        way(queries_QE[0])
    for number, query_E in enumerate(queries_QE):
        for name in rng.permutation(list(ways)):
            started, cpu_started = time.perf_counter(), time.thread_time()
            ways[name](query_E)
            times[name][number] = 1000 * (time.perf_counter() - started)
            cpu[name][number] = 1000 * (time.thread_time() - cpu_started)
    return times, cpu


def percentiles(ms: np.ndarray) -> dict[str, float]:
    return {f"p{percent}": round(float(np.percentile(ms, percent)), 4) for percent in (50, 90, 99)}


if __name__ == "__main__":
    main()
