"""8 threads on one `Searcher`: 10,000 queries, against the answers of one thread; then while the index is replaced.

    python tests/drills/search/threads.py --json threads.json

The store has the shared image vectors and columns of numbers. It is a copy of that of `where.py`, which is made on the
first run. The queries are texts, vectors, images of the store, conditions and near-duplicates in turns. For the second
part, another process rebuilds the index over and over, rows are deleted, and every thread refreshes now and then: each
answer must be wholly that of one of the states.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from indexer import build_index
from indexer.proof.queries import TextQueries
from pipeline.machine import cpu_name
from pipeline.store.layout import Store
from pipeline.store.tombstones import DELETED, add_tombstones
from query import Hits, Searcher
from tests.drills.index.measure import real_vectors
from tests.drills.search.where import imported

THREADS = 8
TEXTS = ("a dog in snow {}", '"beach" + 0.{}*"sunset" - "people"', "{} birds", "a red car, number {}")
RECIPE = "IVF674,PQ96x4fs"
WHERES = ("chance < 0.1", "key like 'coco/%'", "width > 100 or caption is not null", "key like '%7%'")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clipsieve-where")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=6, help="rebuilds and deletions of the second part")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    images_NE, tuning_QE, vectors_QE = real_vectors()
    source = imported(images_NE, arguments.work)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(shutil.copytree(source, Path(folder) / "store"))
        texts = TextQueries(tuning_QE=tuning_QE, proving_QE=vectors_QE[:1000], source="shared texts", sha256="0" * 64)
        build_index(store, text_queries=lambda view: texts, recipe=RECIPE, rebuild=True)
        results = {"cpu": cpu_name(), "load": os.getloadavg()[0], **compared(store, vectors_QE, arguments.queries)}
        results |= changing(store, vectors_QE[:200], arguments.changes)
    print(json.dumps(results, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if results["different"] or results["mixed"]:
        sys.exit(1)


def query_of(number: int, vectors_QE: np.ndarray, keys: list[str]) -> dict:
    """One of the kinds of queries, each in turn."""
    vector, like = vectors_QE[number % len(vectors_QE)], keys[number % len(keys)]
    text, where = TEXTS[number // 5 % len(TEXTS)].format(number), WHERES[number // 5 % len(WHERES)]
    kinds = (
        {"query": text},
        {"vector": vector},
        {"like": like},
        {"vector": vector, "where": where},
        {"vector": vector, "unique": True},
    )
    return kinds[number % len(kinds)]


def compared(store: Path, vectors_QE: np.ndarray, num_queries: int) -> dict:
    """One thread, and then many, each with a Searcher that has loaded nothing."""
    answers, seconds = [], []
    for num_threads in (1, THREADS):
        with Searcher.open(store, device="cpu") as searcher:
            keys = [hit.key for hit in searcher.search(vector=vectors_QE[0], k=500)]
            queries = [query_of(number, vectors_QE, keys) for number in range(num_queries)]
            started = time.perf_counter()
            with ThreadPoolExecutor(num_threads) as threads:
                answers.append(list(threads.map(lambda query: answer_of(searcher.search(**query)), queries)))
            seconds.append(time.perf_counter() - started)
        print(f"{num_threads} threads: {seconds[-1]:.1f} s", flush=True)
    different = sum(not same(*pair) for pair in zip(*answers, strict=True))
    return {
        "num_queries": num_queries,
        "threads": THREADS,
        "one_s": seconds[0],
        "many_s": seconds[1],
        "different": different,
    }


def changing(store: Path, vectors_QE: np.ndarray, num_changes: int) -> dict:
    """Many threads that search and refresh, while rows are deleted and the index is rebuilt by another process."""
    done, states = Event(), []

    def note_state() -> None:
        with Searcher.open(store, device="cpu") as other:
            states.append([answer_of(other.search(vector=one)) for one in vectors_QE])

    note_state()
    with Searcher.open(store, device="cpu") as searcher, ThreadPoolExecutor(THREADS) as threads:

        def ask(thread: int) -> list[tuple[int, tuple]]:
            found = []
            while not done.is_set():
                number = (25 * thread + len(found)) % len(vectors_QE)
                found.append((number, answer_of(searcher.search(vector=vectors_QE[number]))))
                if len(found) % 5 == 0:
                    searcher.refresh()
            return found

        running = [threads.submit(ask, thread) for thread in range(THREADS)]
        try:
            for change in range(num_changes):
                if change % 2:
                    command = [sys.executable, "-m", "query.cli", "index", store, "--rebuild", "--recipe"]
                    recipe = ("SQ8", RECIPE)[change // 2 % 2]
                    subprocess.run([*map(str, command), recipe, "--no-proof"], check=True, capture_output=True)
                else:  # the best hits of some of the queries
                    best = sorted({state[0][0][0] for state in states[-1][change::num_changes]})
                    add_tombstones(Store(store), best, DELETED)
                note_state()
        finally:
            done.set()
        found = [one for future in running for one in future.result()]
    mixed = sum(not any(same(answer, state[number]) for state in states) for number, answer in found)
    return {"changes": num_changes, "states": len(states), "asked_meanwhile": len(found), "mixed": mixed}


def answer_of(hits: Hits) -> tuple[list[tuple], np.ndarray]:
    return [(hit.id, hit.key, hit.rank, hit.duplicates) for hit in hits], np.array([hit.score for hit in hits])


def same(one: tuple, other: tuple) -> bool:
    """Whether two answers are equal; hits whose scores differ by rounding alone may change places."""
    if len(one[1]) != len(other[1]) or not np.allclose(one[1], other[1], atol=1e-4):
        return False
    places = [place for place, (a, b) in enumerate(zip(one[0], other[0], strict=True)) if a[:2] != b[:2]]
    return all(np.abs(np.delete(one[1], place) - one[1][place]).min() < 1e-4 for place in places)


if __name__ == "__main__":
    main()
