"""Compare our index with autofaiss's, built from the same vectors within the same budget, with text queries.

    python tests/drills/index/autofaiss.py --peer-env DIR --budget 12G --budget 60M --json autofaiss.json

The peer's environment is made on the first run: autofaiss 2.18.0 with a faiss-cpu that it works with. autofaiss gets
the vectors, the memory budget and the number of cores, and makes every other choice itself: the recipe, and the nprobe
or efSearch, which it tunes for 10 ms a query. Ours is built by `clipsieve index` with the same budget, as it is and
with each `--max-query-ms`, and is tuned and proven with texts that are not measured here. The two count memory
differently: autofaiss counts all that its index holds; ours leaves out the pages of the file of vectors. Both figures
are reported.

All indexes are then searched by this process with the same texts, one at a time, on one thread, at their own settings
and at others that trade time for recall; the settings take turns block by block. Between two settings of an index,
recall is interpolated over the logarithm of time. By default the vectors are the shared ones; `--vectors` and `--texts`
take others.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from indexer.opening import open_index
from indexer.recipes.point import OperatingPoint
from pipeline.store.view import StoreView
from tests.drills.index.measure import (
    SHARED,
    Condition,
    K,
    embeddings_of,
    exact,
    interleaved,
    real_vectors,
    recalls,
    summary,
)
from tests.drills.index.peer_index import PEER, build_peer, make_peer_env, peer_conditions
from tests.drills.index.processes import clipsieve
from tests.drills.index.scale import built_with

EFFORTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
CANDIDATES = (1 / 4, 1, 4)
"""Times those of the index's own point."""
MODEL = ("--model", "ViT-B-32", "--pretrained", "not-known")
"""What the import claims. Nothing here loads it."""


def main() -> None:
    arguments = parse_arguments()
    images_NE, tuning_QE, queries_QE = vectors_of(arguments)
    truth_QK = exact(images_NE, queries_QE)
    store, texts = imported(arguments), arguments.work / "tuning.parquet"
    column = pa.FixedSizeListArray.from_arrays(pa.array(tuning_QE.astype(np.float16).ravel()), tuning_QE.shape[1])
    pq.write_table(pa.table({"embedding": column}), texts)
    python, shape = make_peer_env(arguments.peer_env, arguments.peer_python), "x".join(map(str, images_NE.shape))
    results = []
    for budget in arguments.budget:
        ours = {}
        for limit in ([], *(["--max-query-ms", limit] for limit in arguments.max_query_ms)):
            name = " ".join(["clipsieve", *limit])
            ours[name] = build_ours(arguments, store, ["--max-index-memory", budget, *limit], texts)
        folder = arguments.work / f"peer-{shape}-{budget}"
        peer = build_peer(images_NE, budget, arguments.build_memory, arguments.cores, python, folder)
        results.append(measured(budget, ours, peer, queries_QE, truth_QK, arguments.timed))
        if arguments.json:
            arguments.json.write_text(json.dumps({"peer": PEER, "budgets": results}, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-env", type=Path, required=True, help="environment of the peer; created if missing")
    parser.add_argument("--peer-python", default="python3.11", help="Python to create it with")
    parser.add_argument("--budget", action="append", required=True, help="memory budget, such as 600M; repeatable")
    parser.add_argument("--max-query-ms", action="append", default=[], help="also index with this limit; repeatable")
    parser.add_argument("--build-memory", default="20G", help="memory that the peer may use to build")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--vectors", type=Path, help="folder of Parquet files, such as STORE/embeddings")
    parser.add_argument("--texts", type=Path, help="Parquet file of text vectors to search with")
    parser.add_argument(
        "--queries", type=int, default=2000, help="texts to take the recall over; others tune our index"
    )
    parser.add_argument("--timed", type=int, default=1000, help="texts to time, in blocks of 100")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clipsieve-autofaiss")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    return arguments


def vectors_of(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images [N, E], texts that tune and prove our index, and texts to measure with."""
    if arguments.vectors:
        files = sorted(arguments.vectors.glob("*.parquet"))
        images_NE, texts_QE = np.concatenate(list(map(embeddings_of, files))), embeddings_of(arguments.texts)
    else:
        images_NE, tuning_QE, others_QE = real_vectors()
        texts_QE = np.concatenate([others_QE, tuning_QE])
    return images_NE, texts_QE[arguments.queries :], texts_QE[: arguments.queries]


def imported(arguments: argparse.Namespace) -> Path:
    """A store of the vectors."""
    store = arguments.work / "store"
    shutil.rmtree(store, ignore_errors=True)
    source = arguments.vectors or SHARED / "data/vectors/images.parquet"
    run = clipsieve("import", source, "--out", store, *MODEL)
    if run.exit_code:
        raise SystemExit(f"clipsieve import failed: {run.errors.splitlines()[-1:]}")
    return store


def build_ours(arguments: argparse.Namespace, store: Path, limits: list[str], texts: Path) -> dict:
    """Index a copy of the store."""
    folder = arguments.work / "-".join(["ours", *limits])
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(store, folder)
    built = built_with(clipsieve("index", folder, *limits, "--queries", texts))
    vector_bytes = sum(path.stat().st_size for path in (folder / "index").glob("rows-*.vectors"))
    return built | {"index": str(folder), "vector_bytes": vector_bytes}


def our_conditions(name: str, built: dict) -> list[Condition]:
    """Our index at its own point, and at others."""
    searcher = open_index(StoreView.open(Path(built["index"])), device="cpu")
    own, most = searcher.point, searcher.recipe.num_lists or 2048
    points = [own]
    if own.effort:
        points += [
            OperatingPoint(effort=max(1, min(most, round(own.effort * effort))), candidates=max(K, round(count)))
            for count in {own.candidates * share for share in CANDIDATES}
            for effort in EFFORTS
        ]

    def at(point: OperatingPoint) -> Condition:
        setting = f"effort={point.effort},candidates={point.candidates}"
        return Condition(
            f"{name} {setting}",
            lambda queries_QE: searcher.find(queries_QE, K, point=point)[1],
            {"setting": setting},
        )

    return [at(point) for point in dict.fromkeys(points)]


def measured(
    budget: str, ours: dict[str, dict], peer: dict, queries_QE: np.ndarray, truth_QK: np.ndarray, num_timed: int
) -> dict:
    """Recall and time of all indexes at all settings, in turn; then what they are at the peer's settings."""
    conditions = {name: our_conditions(name, built) for name, built in ours.items()}
    conditions["autofaiss"] = peer_conditions(peer)
    everything = [condition for found in conditions.values() for condition in found]
    recall = {one.name: summary(recalls(one.search(queries_QE), truth_QK)) for one in everything}
    times = interleaved(everything, queries_QE[:num_timed])
    points = {
        name: [one.detail | recall[one.name] | times[one.name] for one in found] for name, found in conditions.items()
    }
    indexes = {name: without(built, "index") for name, built in {**ours, "autofaiss": peer}.items()}
    result = {"budget": budget, "indexes": indexes, "points": points, "compared": {}}
    for name in ours:
        result["compared"][name] = [compared(point, points[name]) for point in points["autofaiss"]]
    print_result(result)
    return result


def without(found: dict, *names: str) -> dict:
    """What was found but for some of it: folders of this machine are of no use to others."""
    return {name: value for name, value in found.items() if name not in names}


def compared(peer: dict, points: list[dict]) -> dict:
    """Our index where it takes as long as the peer at one of its settings, and where it has the peer's recall."""
    same_time, same_recall = recall_at(peer["ms"], points), ms_at(peer["recall"], points)
    return {
        "setting": peer["setting"],
        "peer_recall": peer["recall"],
        "peer_ms": peer["ms"],
        "recall_at_its_time": same_time,
        "ms_at_its_recall": same_recall,
        "over_its_time": same_recall and same_recall / peer["ms"],
    }


def frontier(points: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Recall and logarithm of the time of the settings that no other one beats in both, the fastest first."""
    best: list[dict] = []
    for point in sorted(points, key=lambda point: (point["ms"], -point["recall"])):
        if not best or point["recall"] > best[-1]["recall"]:
            best.append(point)
    return np.array([point["recall"] for point in best]), np.log([point["ms"] for point in best])


def recall_at(milliseconds: float, points: list[dict]) -> float | None:
    """The recall within a time: that of the best setting if more time is no use, None if no setting is so fast."""
    recall, log_ms = frontier(points)
    return float(np.interp(np.log(milliseconds), log_ms, recall)) if np.log(milliseconds) >= log_ms[0] else None


def ms_at(recall: float, points: list[dict]) -> float | None:
    """The time that a recall takes: that of the fastest setting if less is asked, None if no setting reaches it."""
    found, log_ms = frontier(points)
    return float(np.exp(np.interp(recall, found, log_ms))) if recall <= found[-1] else None


def print_result(result: dict) -> None:
    for name, built in result["indexes"].items():
        print(
            f"{result['budget']}, {name}: {built['recipe']}, {built['num_bytes'] / 1e6:.1f} MB "
            f"(and {built.get('vector_bytes', 0) / 1e6:.1f} MB of vectors), built in {built['build_s']:.1f} s "
            f"({built.get('seconds', built['build_s']):.1f} s with plan and proof, CPU {built['cpu_s']:.1f} s), "
            f"at most {built['peak_anonymous'] / 1e6:.0f} MB of anonymous memory"
        )
        for number, point in enumerate(result["points"][name]):
            setting = point["setting"] + (" (its own)" if number == 0 else "")
            print(
                f"  {setting}: recall@10 {point['recall']:.4f}, p5 {point['p5']:.1f}, {point['ms']:.3f} ms "
                f"(CPU {point['cpu_ms']:.3f})"
            )
    for name, found in result["compared"].items():
        print(f"{result['budget']}, {name} against autofaiss:")
        for one in found:
            recall, ratio = one["recall_at_its_time"], one["over_its_time"]
            print(
                f"  {one['setting']}: recall {one['peer_recall']:.4f} in {one['peer_ms']:.3f} ms; ours "
                f"{'is not so fast' if recall is None else f'{recall:.4f} in that time'}, "
                f"{'never so good' if ratio is None else f'{ratio:.2f} of the time at that recall'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
