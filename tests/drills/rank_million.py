"""Rank a gallery of a million mapped vectors for 5,000 queries: peak memory, and time against the bare product.

    python tests/drills/rank_million.py --folder /tmp/million --json rank_million.json

The vectors are drawn once and kept in the folder (1 GB). `near`: the right item of most queries is among the first few;
`random`: it is anywhere, so that a large part of the gallery is above it. After each block the bare product of the same
size is timed, so that both have the same machine. Memory is anonymous resident memory (RssAnon) of this process.
"""

import argparse
import json
import threading
import time
from pathlib import Path

import numpy as np

from pipeline.measure.provenance import provenance
from query.evaluation.ranking import rank

CHUNK = 50_000


def unit(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Random unit vectors, float32 [rows, dim]."""
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def gallery_of(folder: Path, num_items: int, dim: int) -> np.ndarray:
    """The gallery as a memory map (float16 [num_items, dim]), drawn on first use."""
    path = folder / f"gallery-{num_items}-{dim}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        drawn = np.lib.format.open_memmap(path.with_suffix(".tmp"), "w+", np.float16, (num_items, dim))
        for first in range(0, num_items, CHUNK):
            drawn[first : first + CHUNK] = unit(rng, len(drawn[first : first + CHUNK]), dim)
        drawn.flush()
        path.with_suffix(".tmp").rename(path)
    return np.load(path, mmap_mode="r")


def queries_of(kind: str, gallery: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Queries (float32) whose right items are near them, or anywhere."""
    noise = unit(np.random.default_rng(1), len(pairs), gallery.shape[1])
    if kind == "random":
        return noise
    queries = gallery[pairs[:, 1]].astype(np.float32) + 4 * noise
    return queries / np.linalg.norm(queries, axis=1, keepdims=True)


class Memory:
    """Anonymous memory of this process: when it began, and its peak."""

    def __init__(self) -> None:
        self.before = self.peak = self.now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @staticmethod
    def now() -> int:
        """RssAnon in bytes."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, self.now())

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def measure(kind: str, gallery: np.ndarray, pairs: np.ndarray, alike: np.ndarray) -> dict:
    """Rank once, with the bare product timed after each block."""
    queries = queries_of(kind, gallery, pairs)
    block = gallery[: rank.GALLERY_ROWS].astype(np.float32)
    scores = np.empty((min(len(queries), rank.QUERY_ROWS), len(block)), np.float32)
    seconds = []

    def product(num_done: int, num_items: int) -> None:
        own = block[: (num_done - 1) % rank.GALLERY_ROWS + 1]
        started = time.perf_counter()
        for first in range(0, len(queries), rank.QUERY_ROWS):
            some = queries[first : first + rank.QUERY_ROWS]
            np.matmul(some, own.T, out=scores.ravel()[: len(some) * len(own)].reshape(len(some), len(own)))
        seconds.append(time.perf_counter() - started)

    product(rank.GALLERY_ROWS, len(gallery))
    seconds.clear()
    with Memory() as memory:
        started = time.perf_counter()
        found = rank.answers(queries, gallery, pairs, alike_N=alike, on_block=product)
        all_s = time.perf_counter() - started
    product_s = sum(seconds)
    return {
        "queries": kind,
        "num_queries": len(queries),
        "num_items": len(gallery),
        "dim": gallery.shape[1],
        "k": found.ids_QK.shape[1],
        "seconds": all_s - product_s,
        "product_seconds": product_s,
        "ratio": (all_s - product_s) / product_s,
        "peak_anonymous_bytes": memory.peak,
        "of_which_before": memory.before,
        "median_rank": float(np.median(found.above_Q)),
    }


def main() -> None:
    """Measure both kinds of queries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=5_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--kinds", nargs="+", default=["near", "random"], choices=["near", "random"])
    given = parser.parse_args()
    gallery = gallery_of(given.folder, given.items, given.dim)
    rng = np.random.default_rng(2)
    right = rng.choice(given.items, -(-given.queries // 5), replace=False)  # five captions for each image
    pairs = np.stack([np.arange(given.queries), np.repeat(right, 5)[: given.queries]], axis=1)
    alike = np.arange(given.items)
    alike[rng.choice(given.items, given.items // 100, replace=False)] = rng.choice(right, given.items // 100)
    runs = [measure(kind, gallery, pairs, alike) for kind in given.kinds]
    results = {"runs": runs, "load_average": Path("/proc/loadavg").read_text().split()[:3], "environment": provenance()}
    given.json.write_text(json.dumps(results, indent=2) + "\n")
    for run in runs:
        print(json.dumps(run))


if __name__ == "__main__":
    main()
