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
NUM_TEXTS = 8000


def main() -> None:
    arguments = parse_arguments()
    images_NE = embeddings_of(SHARED / "data/vectors/images.parquet")
    texts_QE = embeddings_of(SHARED / "data/vectors/text_queries.parquet")
    builds = []
    for size in arguments.sizes:
        store = arguments.work / f"store-{size}"
        shutil.rmtree(store, ignore_errors=True)
        generator = Generator(images_NE, texts_QE, num_images=size)
        texts = arguments.work / f"store-{size}-texts.parquet"
        write_store(store, generator)
        write_texts(texts, generator.texts(NUM_TEXTS))
        # a limit of time, because small stores get an exact index without a pilot otherwise
        planned = clipsieve("index", store, "--queries", texts, "--max-query-ms", "2", "--dry-run")
        for kind, part in KINDS.items():
            predicted = next(one for one in planned.results["candidates"] if part in one["recipe"])
            builds.append({"rows": size, "kind": kind} | compared(store, texts, predicted))
            print(builds[-1]["recipe"], builds[-1]["measured over predicted"], flush=True)
            write(arguments.json, builds)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], required=True)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clipsieve-predictions")
    parser.add_argument("--json", type=Path, default=Path("predictions.json"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    return arguments


def compared(store: Path, texts: Path, predicted: dict) -> dict:
    """Build what was predicted, and measure it."""
    recipe = ["--recipe", predicted["recipe"], "--rebuild"]
    alone = built_with(clipsieve("index", store, *recipe, "--no-proof"))
    proven = built_with(clipsieve("index", store, "--recipe", predicted["recipe"], "--queries", texts))
    found = searched(store, texts)
    return {
        "recipe": predicted["recipe"],
        "point": proven["point"],
        "recall": found["recall"],
    } | over_predicted(predicted, found, alone)


def write(path: Path, builds: list[dict]) -> None:
    """Write the builds, and the median error of each prediction: |measured / predicted - 1|."""
    errors = {
        name: statistics.median(abs(build["measured over predicted"][name] - 1) for build in builds)
        for name in builds[0]["measured over predicted"]
    }
    path.write_text(json.dumps({"median_error": errors, "builds": builds}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
