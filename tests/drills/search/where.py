"""Recall and time of filtered searches, against the exact filtered answer.

    python tests/drills/search/where.py --json where.json

The shared image vectors are imported with `clipsieve import --columns` and three columns of numbers from 0 to 1, each
of which lets through the share that a filter asks for: `chance`, in random order; `axis`, by the place along the main
axis of the vectors, so that the allowed rows lie on one side; and `chance_text`, the same as `chance` but as text, as
the carried columns of `clipsieve embed` are. `key like 'coco/%'` and the like allow one of the collections.

Each of the recipes is tuned for a recall@10 of .99 with 1,000 texts; other texts measure it. Times are for one query at
a time, on one thread, with warm files: parsing the filter, evaluating it over all rows, and the search, whose filters
take turns.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from indexer.build import build_index
from indexer.opening import open_index
from indexer.proof.queries import TextQueries
from indexer.searcher import IndexSearcher
from indexer.settings import IndexSettings
from pipeline.store.view import StoreView
from query.filters.where import parse_where
from tests.drills.index.measure import SHARED, Condition, K, exact, interleaved, real_vectors, recalls, summary

SHARES = (0.001, 0.01, 0.1, 0.5)
RECIPES = ("SQfp16", "IVF674,PQ96x4fs", "HNSW32,SQ8")
FILTERS = (
    *(f"{column} < {share}" for column in ("chance", "axis", "chance_text") for share in SHARES),
    *(f"axis >= {1 - share:g}" for share in SHARES),
    "key like 'coco/%'",
    "key like 'tiny_imagenet/%'",
    "not (chance >= 0.5 or axis is null) and (caption is null or caption like '%dog%')",
)
REPEATS = 30


def main() -> None:
    arguments = parse_arguments()
    images_NE, tuning_QE, others_QE = real_vectors()
    others_QE = others_QE[: arguments.queries]
    store = imported(images_NE, arguments.work)
    results: dict[str, dict] = {"imports_ms": import_times(), "recipes": {}}
    for recipe in arguments.recipe or RECIPES:
        settings = IndexSettings(store=store, recipe=recipe, rebuild=True, min_recall=0.99)
        texts = TextQueries(tuning_QE=tuning_QE, proving_QE=others_QE, source="shared texts", sha256="0" * 64)
        report = build_index(settings, lambda view, texts=texts: texts)
        searcher = open_index(StoreView.open(store), device="cpu")
        print(recipe, searcher.point, report.manifest.proof.text, flush=True)
        results["recipes"][recipe] = {"point": searcher.point.model_dump(), "filters": filtered(searcher, others_QE)}
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", action="append", help=f"recipe to measure, repeatable; by default {RECIPES}")
    parser.add_argument("--queries", type=int, default=1000, help="texts to take the recall over; 200 are timed")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clipsieve-where")
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args()


def imported(images_NE: np.ndarray, work: Path) -> Path:
    """A store of the shared vectors with columns to filter by; made on the first run."""
    store, source = work / "store", work / "images.parquet"
    num_rows, columns = len(images_NE), {}
    centred_NE = images_NE[::10] - images_NE.mean(axis=0)
    axis_E = np.linalg.eigh(centred_NE.T @ centred_NE)[1][:, -1]
    columns["chance"] = np.random.default_rng(0).permutation(num_rows) / num_rows
    columns["axis"] = np.argsort(np.argsort(images_NE @ axis_E, kind="stable")) / num_rows
    columns["chance_text"] = [str(value) for value in columns["chance"]]
    if not source.exists():  # a store that exists belongs to this very file
        table = pq.read_table(SHARED / "data/vectors/images.parquet")
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values))
        work.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, source)
    model = f"local-dir:{SHARED / 'models/lit-vit-ti-16'}"
    command = [sys.executable, "-m", "query.cli", "import", source, "--out", store, "--model", model]
    subprocess.run([*command, "--columns", ",".join(columns)], check=True)
    return store


def filtered(searcher: IndexSearcher, queries_QE: np.ndarray) -> list[dict]:
    """Recall, and the time of each step, by filter."""
    rows = searcher.rows
    images_NE = rows.mapped_NE.astype(np.float32)
    masks = {text: parse_where(text, rows.schema).mask(rows) for text in FILTERS}
    timed = interleaved(conditions(searcher, masks), queries_QE[:200])
    results = []
    for text, allowed_N in masks.items():
        where = parse_where(text, rows.schema)
        positions = np.flatnonzero(allowed_N)
        truth_QK = positions[exact(images_NE[positions], queries_QE)]
        found_QK = searcher.find(queries_QE, K, allowed_N=allowed_N)[1]
        assert allowed_N[found_QK].all(), "a row was found that is not allowed"
        one = {
            "where": text,
            "share": len(positions) / len(allowed_N),
            **summary(recalls(found_QK, truth_QK)),
            "parse_ms": median_ms(lambda text=text: parse_where(text, rows.schema)),
            "mask_ms": median_ms(lambda where=where: where.mask(rows)),
            "search_ms": timed[text]["p50_ms"],
            "search_by_ids_ms": timed[f"{text} (ids)"]["p50_ms"],
            "pack_ms": median_ms(lambda allowed_N=allowed_N: np.packbits(allowed_N, bitorder="little")),
        }
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in one.items()}, flush=True)
        results.append(one)
    results.append({"where": None, "share": 1.0, "search_ms": timed["unfiltered"]["p50_ms"]})
    return results


def conditions(searcher: IndexSearcher, masks: dict[str, np.ndarray]) -> list[Condition]:
    """Each filter as a mask and as ids, and no filter."""

    def asking(**allowed: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda queries_QE: searcher.find(queries_QE, K, **allowed)[1]

    found = [Condition("unfiltered", asking(), {})]
    for text, allowed_N in masks.items():
        ids = searcher.rows.ids(np.flatnonzero(allowed_N))
        found += [Condition(text, asking(allowed_N=allowed_N), {})]
        found += [Condition(f"{text} (ids)", asking(allowed_ids=ids), {})]
    return found


def median_ms(call: Callable[[], object]) -> float:
    """Median time of a warm call."""
    call()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def import_times() -> dict[str, float]:
    """What the first filter of a process costs, in ms: importing the filters, and making the parser."""
    program = """import pyarrow, pyarrow.compute, time
pyarrow.array([0])  # imports pandas, if it is there
begun = time.perf_counter()
from query.filters.where import parse_where
imported = time.perf_counter()
parse_where('a > 1', pyarrow.schema({'a': 'int32'}))
print(imported - begun, time.perf_counter() - imported)"""
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, check=True) for _ in range(15)]
    imported, parsed = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
    return {"import": 1000 * statistics.median(imported), "first parse": 1000 * statistics.median(parsed)}


if __name__ == "__main__":
    main()
