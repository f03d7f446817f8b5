"""Throughput of a file of vectors against FAISS's own batch search of the same index, both in turns.

    python tests/drills/search/batch.py STORE --json batch.json

Ours reads the Parquet file of 25,000 text vectors, searches, and writes the hits with keys and relevance as Parquet.
FAISS's is one call of `search` on the same objects with the same parameters, for vectors that are in memory.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from pipeline.machine import cpu_name
from query import Searcher
from query.batch import search_file
from query.queries.options import Options
from tests.drills.index.measure import SHARED, K, embeddings_of

QUERIES = SHARED / "data/vectors/text_queries.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    queries_QE = embeddings_of(QUERIES)
    queries_QE /= np.linalg.norm(queries_QE, axis=1, keepdims=True)
    ours, bare, rng = [], [], np.random.default_rng(0)
    with Searcher.open(arguments.store, device="cpu") as searcher, tempfile.TemporaryDirectory() as folder:
        index, out = searcher.current[0].index, Path(folder) / "hits.parquet"
        search_file(searcher, QUERIES, out, Options(k=K))
        for number in range(arguments.rounds):
            for is_ours in rng.permutation([True, False]):
                started = time.perf_counter()
                if is_ours:
                    report = search_file(searcher, QUERIES, out, Options(k=K))
                    assert report.num_hits == K * len(queries_QE)
                else:  # what `IndexSearcher.find` calls: one `search` of FAISS for all of them
                    index.find(queries_QE, K)
                (ours if is_ours else bare).append(time.perf_counter() - started)
            print(f"{number}: ours {ours[-1]:.2f} s, FAISS {bare[-1]:.2f} s", flush=True)
        results = {
            "store": arguments.store.name,
            "recipe": index.recipe.factory,
            "point": index.point.model_dump(),
            "num_rows": index.num_rows,
            "num_queries": len(queries_QE),
            "cpu": cpu_name(),
            "load": os.getloadavg()[0],
            "ours_s": ours,
            "faiss_s": bare,
            "throughput": statistics.median(b / a for a, b in zip(ours, bare, strict=True)),
        }
    print(json.dumps(results, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
