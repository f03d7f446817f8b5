"""Index the shared vectors, and compare the searches with plain FAISS tuned to the same recall.

    python tests/drills/index/real.py STORE --json real.json

STORE is a store of the shared image vectors (`clipsieve import`). Copies of it are indexed; it stays as it is. All
indexes are tuned with the same 1,000 texts and measured with others. The searches go through `IndexSearcher.find`, as
those of `clipsieve search` do.

1. One query at a time, on one thread, in warm blocks of 100 that take turns with tuned `IVFn,SQfp16` and with exact
   search in float32. An index appears at its own point (its tuning asks for one standard error more than the recall)
   and at the point that is tuned as the baselines are: the least nprobe whose mean recall is enough.
2. All 25,000 texts at once.
3. Searches that may find 0.1, 1, 10 and 50 % of the rows: random ones, and those on one side of the main axis.
4. A fifth of the rows deleted: 10,000 answers without and with an update, and the recall of an index of the others.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from indexer.build import build_index
from indexer.manifest import MANIFEST_FILE
from indexer.opening import open_index
from indexer.proof.queries import TextQueries
from indexer.recipes.point import OperatingPoint
from indexer.searcher import IndexSearcher
from indexer.settings import IndexSettings
from pipeline.store.tombstones import DELETED, add_tombstones
from pipeline.store.view import StoreView
from tests.drills.index.measure import Condition, K, exact, interleaved, real_vectors, recalls, summary
from tests.drills.index.plain_faiss import Texts, plain_conditions, tuned

RECALL = 0.99
RECIPE = "IVF1024,PQ96x4fs"
BATCHED = ("IVF2048,SQfp16", "exact fp32", "clipsieve, its own choice", f"clipsieve, {RECIPE}")
"""Names of the conditions that answer all texts at once."""
CANDIDATES = (200, 300, 400)
SHARES = (0.001, 0.01, 0.1, 0.5)
DELETED_SHARE = 0.2
POINT = OperatingPoint(effort=202, candidates=300)
"""Where `RECIPE` is searched after deletions: a recall of .99."""


def main() -> None:
    arguments = parse_arguments()
    _, tuning_QE, others_QE = real_vectors()
    chosen = {"its own choice": {"max_query_ms": 1.0}, RECIPE: {"recipe": RECIPE}}
    indexes = {name: build(arguments, name, how, tuning_QE, others_QE) for name, how in chosen.items()}
    images_NE = indexes["its own choice"][0].rows.mapped_NE.astype(np.float32)
    tuning, others = Texts.of(images_NE, tuning_QE), Texts.of(images_NE, others_QE[: arguments.queries])
    conditions = plain_conditions(images_NE, tuning, others, RECALL, arguments.work)
    for name, (searcher, report) in indexes.items():
        conditions += own_conditions(name, searcher, tuning, others)
        print(f"{name}: {report['recipe']} {report['point']}, {report['proof']}", flush=True)
    results = {"indexes": {name: report for name, (_, report) in indexes.items()}}
    steps = {
        "one query": lambda: one_query(conditions, others.queries_QE[: arguments.timed]),
        "batch": lambda: batch(
            [one for one in conditions if one.name in BATCHED], np.concatenate([tuning_QE, others_QE])
        ),
        "allowed": lambda: allowed(indexes["its own choice"][0], images_NE, others.queries_QE[:1000]),
        "deleted": lambda: deleted(arguments, tuning_QE, others_QE),
    }
    done = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for name, take in steps.items():
        results[name] = done[name] if name in done else take()
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="store of the shared image vectors")
    parser.add_argument("--queries", type=int, default=4000, help="texts to report the recall on")
    parser.add_argument("--timed", type=int, default=2000, help="texts to time, in blocks of 100")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clipsieve-real")
    parser.add_argument("--json", type=Path, default=Path("real.json"), help="steps in it are not repeated")
    return parser.parse_args()


def copied(arguments: argparse.Namespace, name: str) -> Path:
    """A copy of the store without an index."""
    folder = arguments.work / name.replace(" ", "-").replace(",", "-")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(arguments.store, folder, ignore=shutil.ignore_patterns("index"))
    return folder


def queries_of(tuning_QE: np.ndarray, others_QE: np.ndarray) -> TextQueries:
    digest = hashlib.sha256(others_QE.tobytes()).hexdigest()
    return TextQueries(tuning_QE=tuning_QE, proving_QE=others_QE, source="the shared texts", sha256=digest)


def build(
    arguments: argparse.Namespace, name: str, how: dict, tuning_QE: np.ndarray, others_QE: np.ndarray
) -> tuple[IndexSearcher, dict]:
    """Index a copy of the store, or take that of an earlier run; returns the opened index and what was built."""
    store = arguments.work / name.replace(" ", "-").replace(",", "-")
    if not (store / "index" / MANIFEST_FILE).exists():
        store = copied(arguments, name)
    return built(IndexSettings(store=store, min_recall=RECALL, **how), queries_of(tuning_QE, others_QE))


def built(settings: IndexSettings, queries: TextQueries) -> tuple[IndexSearcher, dict]:
    """Build as the settings say; returns the opened index and what was built."""
    manifest = build_index(settings, lambda view: queries).manifest
    report = {
        "recipe": manifest.recipe,
        "point": manifest.point.model_dump(),
        "num_bytes": manifest.num_bytes,
        "is_proven": manifest.proof.is_proven,
        "proof": manifest.proof.reason,
        "why": manifest.reason,
        "steps_s": manifest.seconds,
    }
    return open_index(StoreView.open(settings.store), device="cpu"), report


def own_conditions(name: str, searcher: IndexSearcher, tuning: Texts, others: Texts) -> list[Condition]:
    """An index at its own point, and at the points that are tuned as the baselines are, by number of candidates."""

    def at(point: OperatingPoint):
        return lambda queries_QE: searcher.find(queries_QE, K, point=point)[1]

    own = at(searcher.point)
    conditions = [
        Condition(
            f"clipsieve, {name}",
            own,
            searcher.point.model_dump() | {"setting": "own"} | summary(others.recalls_of(own)),
        )
    ]
    for count in CANDIDATES if searcher.point.candidates > K else (searcher.point.candidates,):
        conditions += tuned(
            f"clipsieve, {name}, {count} candidates",
            lambda effort, count=count: at(OperatingPoint(effort=effort, candidates=count)),
            searcher.recipe.num_lists // 2 or 2048,
            tuning,
            others,
            RECALL,
        )
    return conditions


def one_query(conditions: list[Condition], queries_QE: np.ndarray) -> list[dict]:
    """Time of one query by condition, over that of the fastest baseline and of exact search."""
    times = interleaved(conditions, queries_QE)
    results = [{"name": condition.name} | condition.detail | times[condition.name] for condition in conditions]
    plain = min((one for one in results if one["name"].endswith("SQfp16")), key=lambda one: one["ms"])
    exhaustive = next(one for one in results if one["name"] == "exact fp32")
    for one in results:
        one["over plain"] = {key: one[key] / plain[key] for key in ("ms", "cpu_ms")}
        one["over exact"] = one["ms"] / exhaustive["ms"]
        print(
            f"{one['name']} at {one['setting']}: recall@10 {one['recall']:.4f}, p5 {one['p5']:.1f}, {one['ms']:.3f} ms "
            f"(CPU {one['cpu_ms']:.3f}, p99 {one['p99_ms']:.3f}), {one['over plain']['ms']:.2f} of plain, "
            f"{one['over exact']:.3f} of exact",
            flush=True,
        )
    return results


def batch(conditions: list[Condition], queries_QE: np.ndarray) -> dict[str, float]:
    """Queries per second with all queries at once, on all cores: the better of two rounds that take turns."""
    seconds: dict[str, list[float]] = {condition.name: [] for condition in conditions}
    for _ in range(2):
        for condition in conditions:
            started = time.perf_counter()
            condition.search(queries_QE)
            seconds[condition.name].append(time.perf_counter() - started)
    rates = {name: len(queries_QE) / min(found) for name, found in seconds.items()}
    print({name: round(rate) for name, rate in rates.items()}, flush=True)
    return rates


def allowed(searcher: IndexSearcher, images_NE: np.ndarray, queries_QE: np.ndarray) -> list[dict]:
    """Recall and time where only some rows may be found."""
    centred_NE = images_NE[::10] - images_NE.mean(axis=0)
    axis_E = np.linalg.eigh(centred_NE.T @ centred_NE)[1][:, -1]
    random = np.random.default_rng(0).permutation(len(images_NE))
    orders = {"random": random, "one side": np.argsort(images_NE @ axis_E, kind="stable")}
    results = []
    for kind, order in orders.items():
        for share in SHARES:
            rows = np.sort(order[: round(share * len(order))])
            ids = searcher.rows.ids(rows)
            truth_QK = rows[exact(images_NE[rows], queries_QE)]
            found_QK = searcher.find(queries_QE, K, ids)[1]
            assert np.isin(found_QK, np.append(rows, -1)).all(), "a row was found that is not allowed"

            def search(queries_QE: np.ndarray, ids: np.ndarray = ids) -> np.ndarray:
                return searcher.find(queries_QE, K, ids)[1]

            timed = interleaved([Condition("filtered", search, {})], queries_QE[:200])["filtered"]
            one = {"rows": kind, "share": share, **summary(recalls(found_QK, truth_QK)), "ms": timed["ms"]}
            print(one, flush=True)
            results.append(one)
    return results


def deleted(arguments: argparse.Namespace, tuning_QE: np.ndarray, others_QE: np.ndarray) -> dict:
    """Delete rows of an indexed store, and search before and after an update, and after a rebuild."""
    queries, recipe = queries_of(tuning_QE, others_QE), RECIPE
    store = copied(arguments, "deleted")
    before, _ = built(IndexSettings(store=store, proof=False, recipe=recipe), queries)
    ids = before.rows.ids(np.arange(before.rows.num_rows))
    gone = np.sort(np.random.default_rng(0).choice(ids, round(DELETED_SHARE * len(ids)), replace=False))
    view = StoreView.open(store)
    add_tombstones(view.store, gone, DELETED)
    texts_QE = others_QE[:1000]
    images_NE = before.rows.mapped_NE.astype(np.float32)
    live = np.setdiff1d(ids, gone)
    truth_QK = live[exact(images_NE[before.rows.positions(live)], texts_QE)]

    def answers(searcher: IndexSearcher) -> dict:
        found_QK = searcher.search(texts_QE, K, point=POINT)[1]
        num_deleted = int(np.isin(found_QK, gone).sum())
        return {"answers": found_QK.size, "deleted": num_deleted, **summary(recalls(found_QK, truth_QK))}

    settings = IndexSettings(store=store, proof=False, recipe=recipe)
    results = {"without an update": answers(open_index(StoreView.open(store), device="cpu"))}
    results["updated"] = answers(built(settings, queries)[0])
    results["rebuilt"] = answers(built(settings.model_copy(update={"rebuild": True}), queries)[0])
    print(results, flush=True)
    return results


if __name__ == "__main__":
    main()
