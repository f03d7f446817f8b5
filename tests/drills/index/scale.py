"""Index a large store within a budget of memory, and measure the build, the searches and an update.

    python tests/drills/index/synthetic.py STORE --images 1000000 --dim 512 --texts 8000
    python tests/drills/index/scale.py STORE --max-index-memory 600M --json scale.json

STORE-texts.parquet, which the generator writes, holds the queries. STORE gets an index, and afterwards a shard of 1 %
new rows and an updated index: give a copy of a store that is still needed.

1. `clipsieve index --dry-run`: what is predicted.
2. `clipsieve index`: what is built. The steps and their seconds, and the peak of anonymous memory, that of the plan and
   the proof among it.
3. A process of its own opens the index and searches: seconds and anonymous memory of opening, memory after 1,000
   queries, recall@10 and times of one query on one thread, interleaved with exact search in float32 (in blocks of 10
   queries for both: exact search takes too long for 100).
4. `clipsieve index` after 1 % new rows: its seconds over those of the build, proof left out of both.
5. The same recipe again, without plan and proof: the peak of the build alone.

`--steps` takes some of them, or in another order: 10 million rows are best built without a proof first.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.drills.index.processes import Run, anonymous, clipsieve, environment

PROOF_STEPS = ("proof", "plan")
INSIDE = "--inside"
NUM_TRUTH, MEASURED = 1_500, 2 / 3
"""Texts that are compared with exact search. So many of them are measured; the others tune an index without a proof."""
CANDIDATES = (100, 200, 400, 800, 1_600)
MIN_RECALL = 0.95


def main() -> None:
    arguments = parse_arguments()
    results = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    results |= {"store": arguments.store.name, "max_index_memory": arguments.max_index_memory}
    limits = ["--max-index-memory", arguments.max_index_memory, "--min-recall", str(arguments.min_recall)]
    queries = ["--queries", arguments.store.with_name(f"{arguments.store.name}-texts.parquet")]

    def step(name: str, take) -> None:
        if name not in results:
            results[name] = take()
        print(f"{name}: {json.dumps(results[name])}", flush=True)
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    def predict() -> dict:
        found = clipsieve("index", arguments.store, *limits, *queries, "--dry-run")
        winner = next(one for one in found.results["candidates"] if one["recipe"] == found.results["recipe"])
        return winner | {"reason": found.results["reason"], "seconds": found.seconds}

    def recipe() -> list[str]:
        return ["--recipe", results["predicted"]["recipe"], "--no-proof"]

    steps = {
        "predicted": predict,
        "built": lambda: built_with(clipsieve("index", arguments.store, *limits, *queries)),
        "searched": lambda: searched(arguments.store, queries[1], arguments.truth),
        "updated": lambda: updated(arguments, recipe(), results.get("built") or results["built alone"]),
        "built alone": lambda: built_with(clipsieve("index", arguments.store, *recipe(), "--rebuild")),
    }
    for name in arguments.steps:
        step(name, steps[name])
    compared = ("predicted", "searched", "built alone")
    if results.keys() >= set(compared):
        results["compared"] = over_predicted(*(results[name] for name in compared))
        print(results["compared"]["measured over predicted"])
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def over_predicted(predicted: dict, found: dict, alone: dict) -> dict[str, dict[str, float]]:
    """What was predicted and measured, and the one over the other.

    Args:
        predicted: A candidate of the plan.
        found: What `searched` returns.
        alone: What `built_with` returns of a build without a proof.
    """
    time = found["times"]["clipsieve in blocks of 100"]
    predicted = predicted | {"query_cpu_ms": predicted["query_ms"]}
    measured = {
        "index_bytes": alone["num_bytes"],
        "index_memory": found["memory"],
        "build_memory": alone["peak_anonymous"] - found["imported"],
        "query_ms": time["ms"],
        "query_cpu_ms": time["cpu_ms"],
        "build_s": alone["build_s"],
        "opening_s": found["opened_s"],
        "opening_memory": found["opened_growth"],
    }
    return {
        "predicted": {name: predicted[name] for name in measured},
        "measured": measured,
        "measured over predicted": {name: value / predicted[name] for name, value in measured.items()},
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--max-index-memory", default="600M")
    parser.add_argument("--min-recall", type=float, default=MIN_RECALL)
    parser.add_argument("--json", type=Path, default=Path("scale.json"), help="results; steps in it are not repeated")
    parser.add_argument("--truth", type=int, default=NUM_TRUTH, help="texts that are compared with exact search")
    parser.add_argument(
        "--steps",
        type=lambda text: text.split(","),
        default=["predicted", "built", "searched", "updated", "built alone"],
        help="which ones to take, in which order",
    )
    return parser.parse_args()


def built_with(run: Run) -> dict:
    """What a build did and took."""
    if run.exit_code not in (0, 4):
        raise SystemExit(f"clipsieve index failed: {run.errors.splitlines()[-1:]}")
    found = run.results
    text = next((one for one in found["proof"]["text"] if one["point"] == found["point"]), None)
    return {
        "exit_code": run.exit_code,
        "action": found["action"],
        "recipe": found["recipe"],
        "num_vectors": found["num_vectors"],
        "num_bytes": found["num_bytes"],
        "point": found["point"],
        "proof": found["proof"]["reason"],
        "proven": text,
        "steps_s": found["seconds"],
        "seconds": run.seconds,
        "cpu_s": run.cpu_s,
        "build_s": sum(seconds for step, seconds in found["seconds"].items() if step not in PROOF_STEPS),
        "peak_anonymous": run.peak_anonymous,
    }


def searched(store: Path, texts: Path, num_truth: int = NUM_TRUTH) -> dict:
    """Open and search in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), INSIDE, str(store), str(texts), str(num_truth)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment())
    if found.returncode:
        raise SystemExit(found.stderr)
    return json.loads(found.stdout)


def inside(store: Path, texts: Path, num_truth: int) -> dict:
    """Runs in a process of its own."""
    import faiss
    import numpy as np
    import pyarrow  # noqa: F401 - part of the base that growth is counted from

    from indexer.manifest import read_manifest
    from indexer.opening import open_index
    from pipeline.store.view import StoreView
    from tests.drills.index.measure import Condition, K, embeddings_of, interleaved, recalls, summary

    view = StoreView.open(store)
    manifest, queries_QE = read_manifest(view), embeddings_of(texts)[-num_truth:]
    faiss.knn(queries_QE[:2], queries_QE[:100], 1)  # starts the threads
    imported, started = anonymous(), time.perf_counter()
    searcher = open_index(view, device="cpu")
    opened_s, opened = time.perf_counter() - started, anonymous() - imported
    for row in range(len(queries_QE)):
        searcher.find(queries_QE[row : row + 1], K)
    grown = anonymous() - imported
    mapped = 0 if "fs" in manifest.recipe else manifest.num_bytes
    images_NE = searcher.rows.mapped_NE.astype(np.float32)
    truth_QK = faiss.knn(queries_QE, images_NE, K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    measured = round(MEASURED * num_truth)
    if not manifest.proof.text:
        searcher.point = tuned_here(searcher, queries_QE[measured:], truth_QK[measured:])
    queries_QE, truth_QK = queries_QE[:measured], truth_QK[:measured]
    found_QK = searcher.find(queries_QE, K)[1]
    flat = faiss.IndexFlat(searcher.rows.dim, faiss.METRIC_INNER_PRODUCT)
    nobody = flat.codes.owner
    flat.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(images_NE), images_NE.nbytes, nobody)
    flat.ntotal = len(images_NE)
    conditions = [
        Condition("clipsieve", lambda queries: searcher.find(queries, K)[1], {}),
        Condition("exact fp32", lambda queries: flat.search(queries, K)[1], {}),
        Condition("exact fp16", lambda queries: searcher.rows.as_index().search(queries, K)[1], {}),
    ]
    times = interleaved(conditions, queries_QE[:30], block=10)
    alone = interleaved(conditions[:1], queries_QE)
    return {
        "point": searcher.point.model_dump(),
        "imported": imported,
        "opened_s": opened_s,
        "opened_growth": opened,
        "growth_after_queries": grown,
        "memory": grown + mapped + 8 * manifest.num_rows,
        "times": times | {"clipsieve in blocks of 100": alone["clipsieve"]},
        "over exact fp32": times["clipsieve"]["ms"] / times["exact fp32"]["ms"],
        **summary(recalls(found_QK, truth_QK)),
    }


def tuned_here(searcher: object, queries_QE: object, truth_QK: object) -> object:
    """The point that the first round of a proof would choose, of an index without a proof."""
    from indexer.proof.tuning import tune
    from indexer.prove import MARGINS

    def search_at(point: object) -> object:
        return lambda queries, k: searcher.find(queries, k, point=point)

    most = searcher.recipe.num_lists or 2048
    return tune(search_at, queries_QE, truth_QK, MIN_RECALL, most, CANDIDATES, MARGINS[0])[0]


def updated(arguments: argparse.Namespace, recipe: list, built: dict) -> dict:
    """Add a shard of 1 % new rows, and bring the index up to date."""
    from tests.drills.index.synthetic import add_rows

    add_rows(arguments.store, built["num_vectors"] // 100)
    found = built_with(clipsieve("index", arguments.store, *recipe))
    return found | {"over the build": found["build_s"] / built["build_s"]}


if __name__ == "__main__":
    if sys.argv[1:2] == [INSIDE]:
        print(json.dumps(inside(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))))
    else:
        main()
