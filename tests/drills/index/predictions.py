"""Compare what `clipsieve index --dry-run` predicts with what is measured: several sizes, three kinds of index.

    python tests/drills/index/predictions.py --sizes 15000,30000,60000,120000 --json predictions.json

The stores are generated, as wide as the shared vectors. Of each kind, the fastest candidate is built by
`clipsieve index --recipe`. Bytes are those of the index file; the build's seconds and its peak memory are without the
proof; memory, query time and opening are those of a process that only searches. The query's CPU time, which other work
on the machine disturbs less, is compared with the same prediction. Speeds are taken from the cache, as for any user; an
empty folder in CLIPSIEVE_CACHE has the machine measured again.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.drills.index.generator import Generator
from tests.drills.index.measure import SHARED, embeddings_of
from tests.drills.index.processes import clipsieve
from tests.drills.index.scale import built_with, over_predicted, searched
from tests.drills.index.synthetic import write_store, write_texts

KINDS = {"PQ fast-scan": "x4fs", "SQ8": "SQ8", "HNSW": "HNSW"}
NUM_TEXTS = 4000


def main() -> None:
    arguments = parse_arguments()
    builds = []
    for size in arguments.sizes:
        note = arguments.work / f"prepared-{size}.json"
        if "prepare" in arguments.steps and not note.exists():
            note.write_text(json.dumps(prepare(arguments, size)), encoding="utf-8")
    for size in arguments.sizes if "measure" in arguments.steps else ():
        for kind, prepared in json.loads((arguments.work / f"prepared-{size}.json").read_text()).items():
            builds.append({"rows": size, "kind": kind} | measured(arguments.work, prepared))
            print(builds[-1]["recipe"], builds[-1]["measured over predicted"], flush=True)
            write(arguments.json, builds)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], required=True)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clipsieve-predictions")
    parser.add_argument("--json", type=Path, default=Path("predictions.json"))
    parser.add_argument(
        "--steps",
        type=lambda text: text.split(","),
        default=["prepare", "measure"],
        help="prepare (plans, and indexes tuned for their recall; the slow part), measure, or both",
    )
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    return arguments


def prepare(arguments: argparse.Namespace, size: int) -> dict:
    """Plan a store of so many rows, and make a copy of it with a tuned index for each kind."""
    images_NE = embeddings_of(SHARED / "data/vectors/images.parquet")
    texts_QE = embeddings_of(SHARED / "data/vectors/text_queries.parquet")
    generator = Generator(images_NE, texts_QE, num_images=size)
    store, texts = arguments.work / f"store-{size}", arguments.work / f"store-{size}-texts.parquet"
    shutil.rmtree(store, ignore_errors=True)
    write_store(store, generator)
    write_texts(texts, generator.texts(NUM_TEXTS))
    # a limit of time, because small stores get an exact index without a pilot otherwise
    planned = clipsieve("index", store, "--queries", texts, "--max-query-ms", "2", "--dry-run")
    prepared = {}
    for kind, part in KINDS.items():
        predicted = next(one for one in planned.results["candidates"] if part in one["recipe"])
        copy = arguments.work / f"store-{size}-{part}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(store, copy)
        proven = built_with(clipsieve("index", copy, "--recipe", predicted["recipe"], "--queries", texts))
        print(size, predicted["recipe"], proven["point"], proven["proof"], flush=True)
        prepared[kind] = {"store": copy.name, "texts": texts.name, "predicted": predicted, "point": proven["point"]}
    return prepared


def measured(work: Path, prepared: dict) -> dict:
    """Search the tuned index, then build it again without a proof."""
    store, predicted = work / prepared["store"], prepared["predicted"]
    found = searched(store, work / prepared["texts"])
    again = work / f"{store.name}-again"
    shutil.rmtree(again, ignore_errors=True)
    shutil.copytree(store, again, ignore=shutil.ignore_patterns("index"))
    alone = built_with(clipsieve("index", again, "--recipe", predicted["recipe"], "--no-proof"))
    shutil.rmtree(again)
    result = {"recipe": predicted["recipe"], "point": prepared["point"], "recall": found["recall"]}
    return result | over_predicted(predicted, found, alone)


def write(path: Path, builds: list[dict]) -> None:
    """Write the builds, and the median error of each prediction: |measured / predicted - 1|."""
    errors = {
        name: statistics.median(abs(build["measured over predicted"][name] - 1) for build in builds)
        for name in builds[0]["measured over predicted"]
    }
    path.write_text(json.dumps({"median_error": errors, "builds": builds}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
