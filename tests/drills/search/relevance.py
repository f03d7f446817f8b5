"""Does a search know when nothing in the store fits? The AUC of relevance against that of the cosine, by the top hit.

    python tests/drills/search/relevance.py WORK --json relevance.json

WORK keeps the stores that are embedded, for the next run. Half of the images of a collection, chosen by a seed, are
left out of the store that is searched. Queries with a right answer are captions whose image is in it. Queries without
one are of two kinds, which are kept apart: captions whose image was left out, and the texts of `absurd.txt`. Cosine and
relevance are those of the top hit, by `IndexSearcher` and `Background`.

1. The line is fixed on the training images of Flickr8k: nine of ten of every second absurd text are below. `WEAK` is
   that line, rounded to a tenth. It is reported with other images, other models and the other half of the texts.
2. AUC with paired bootstrap intervals over images: in each store, and in stores of two models together.
3. The share of queries above the line, by model, policy and number of images; and above that of the cosine, which is
   fixed in the same way.
4. Other measures that were tried, beside relevance.
5. The time that relevance takes, of one query and of a batch.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from indexer.build import build_index
from indexer.opening import open_index
from indexer.rows.collect import live_batches
from indexer.searcher import IndexSearcher
from indexer.settings import IndexSettings
from pipeline.embedding import embed
from pipeline.measure.provenance import provenance
from pipeline.model.encode import Encoder
from pipeline.model.spec import EMBEDDED
from pipeline.scenes.collection import write_collection
from pipeline.settings.embed import EmbedSettings
from pipeline.source.formats.captions import read_captions
from pipeline.store.view import StoreView
from query.hits.relevance import ORDINARY_TEXTS, WEAK, Background
from query.proof.generator import built_in_texts, scene_texts
from query.text import text_encoder
from tests.drills.index.measure import SHARED, embeddings_of
from tests.drills.search.auc import paired_auc
from tests.drills.search.others import others
from tests.kit.vector_store import vector_store

COMMAND = "python tests/drills/search/relevance.py WORK --json relevance.json"
REFERENCE = f"local-dir:{SHARED / 'models/lit-vit-ti-16'}"
NUM_SCENES = 2_000
ABSURD_BELOW = 0.9
NUM_GENERIC = 500
TIMED = 2_000
WITH_OTHERS = (("test", "none"), ("scenes", "none"))
"""The stores in which the other measures are taken."""


def main() -> None:
    arguments = parse_arguments()
    cases = made_cases(arguments.work)
    lines = {
        measure: float(np.quantile(cases["train"].absurd[measure][::2], ABSURD_BELOW))
        for measure in ("relevance", "cosine")
    }
    print(f"lines {lines}, in the code {WEAK}", flush=True)
    results = provenance() | {"command": COMMAND, "lines": lines, "in the code": WEAK}
    results["stores"] = {name: case.report(lines["cosine"]) for name, case in cases.items()}
    results["two models"] = pooled([cases["test"], cases["scenes"]])
    real = real_case(arguments.work, cases["test"])
    results["stores"]["113,802 others and 500 of test"] = real.report(lines["cosine"], with_left_out=False)
    results["real texts above the line"] = above_line_of_real_texts(real)
    results["time"] = times(real)
    arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    show(results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for the stores")
    parser.add_argument("--json", type=Path, default=Path("relevance.json"), help="where the results go")
    return parser.parse_args()


def absurd_texts() -> list[str]:
    lines = (Path(__file__).parent / "absurd.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@dataclass(frozen=True)
class Texts:
    """Vectors [n, E] of one model's texts."""

    captions: np.ndarray
    images: np.ndarray
    """The image of each caption, by its place in the collection."""
    absurd: np.ndarray
    ordinary: np.ndarray
    generic: np.ndarray
    """Built-in texts, for the other measures."""


@dataclass(frozen=True)
class Case:
    """A store that is searched, and the queries."""

    index: IndexSearcher
    texts: Texts
    is_in_store: np.ndarray
    """By place in the collection."""
    with_others: bool = False
    """Whether the other measures are taken as well."""

    @cached_property
    def background(self) -> Background:
        return Background(self.index)

    @cached_property
    def spread(self) -> float:
        return float(self.background.spreads(self.texts.ordinary).mean())

    @cached_property
    def has_answer(self) -> np.ndarray:
        return self.is_in_store[self.texts.images]

    @cached_property
    def captions(self) -> dict[str, np.ndarray]:
        return self.measured(self.texts.captions)

    @cached_property
    def absurd(self) -> dict[str, np.ndarray]:
        return self.measured(self.texts.absurd)

    def measured(self, queries_QE: np.ndarray) -> dict[str, np.ndarray]:
        """Each measure of the top hit."""
        scores_Q1, _ = self.index.find(queries_QE, 1)
        found = {
            "cosine": scores_Q1[:, 0],
            "relevance": self.background.relevance(queries_QE, scores_Q1, self.spread)[:, 0],
            "relevance, own spread": self.background.relevance(queries_QE, scores_Q1)[:, 0],
        }
        if self.with_others:
            images_NE = self.index.rows.vectors(np.arange(self.index.rows.num_rows))
            found |= others(queries_QE, images_NE, self.texts.generic)
        return found

    def queries(self, measure: str, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, which queries have a right answer, and images, of one kind of query without."""
        own, has = self.captions[measure], self.has_answer
        if kind == "left out":
            return own, has, self.texts.images
        absurd = self.absurd[measure]
        images = np.concatenate([self.texts.images[has], -1 - np.arange(len(absurd))])
        return np.concatenate([own[has], absurd]), np.arange(len(images)) < has.sum(), images

    def report(self, cosine_line: float, with_left_out: bool = True) -> dict[str, object]:
        kinds = ["left out", "absurd"] if with_left_out else ["absurd"]
        found: dict[str, object] = {
            kind: {
                measure: paired_auc(self.queries(measure, kind)[0], *self.queries("cosine", kind))
                for measure in self.captions
            }
            for kind in kinds
        }
        for measure, line in (("relevance", WEAK), ("cosine", cosine_line)):
            own, absurd = self.captions[measure], self.absurd[measure][1::2]
            above = {"with an answer": own[self.has_answer], "absurd, other half": absurd}
            if with_left_out:
                above["left out"] = own[~self.has_answer]
            found[f"{measure} above the line"] = {name: float((one > line).mean()) for name, one in above.items()}
        found |= {"images": self.index.num_rows, "spread": self.spread}
        print(f"{self.index.num_rows} images: {found['relevance above the line']}", flush=True)
        return found


def pooled(cases: list[Case]) -> dict[str, object]:
    """AUC over the queries of several stores as if they were one."""

    def together(measure: str, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = [case.queries(measure, kind) for case in cases]
        images = [1_000_000 * number + images for number, (_, _, images) in enumerate(found)]
        return tuple(np.concatenate(parts) for parts in ([one[0] for one in found], [one[1] for one in found], images))

    return {
        kind: {
            measure: paired_auc(together(measure, kind)[0], *together("cosine", kind)) for measure in cases[0].captions
        }
        for kind in ("left out", "absurd")
    }


def made_cases(work: Path) -> dict[str, Case]:
    """Half of each collection, by model and policy; and half of the test images among all training images."""
    flickr = {name: SHARED / f"data/flickr8k-{name}" for name in ("train", "test")}
    scenes = work / "scenes"
    if not (scenes / "captions.tsv").exists():
        write_collection(scenes, NUM_SCENES)
    cases, vectors = {}, {}
    collections = [(name, folder, REFERENCE) for name, folder in flickr.items()] + [("scenes", scenes, EMBEDDED)]
    for name, folder, model in collections:
        texts = None
        for policy in ("none", "balanced"):
            view = embedded(folder, work / f"{name}-{policy}", model, policy)
            keys, vectors[name, policy] = rows_of(view)
            texts = texts or texts_of(view, keys, folder / "captions.tsv", 1 if name == "train" else None)
            cases[name if policy == "none" else f"{name}, {policy}"] = half(
                work, vectors[name, policy], texts, (name, policy) in WITH_OTHERS
            )
    test = cases["test"]
    larger = np.concatenate([vectors["test", "none"][test.is_in_store], vectors["train", "none"]])
    cases["6,000 of train and 500 of test"] = Case(searchable(work, larger), test.texts, test.is_in_store)
    return cases


def embedded(folder: Path, out: Path, model: str, policy: str) -> StoreView:
    """A store of a collection's images."""
    if not (out / "stats.json").exists():
        embed(EmbedSettings(source=str(folder), out=out, model=model, policy=policy, precision="fp32"))
    return StoreView.open(out)


def rows_of(view: StoreView) -> tuple[list[str], np.ndarray]:
    """Keys and vectors of a store."""
    keys, parts = [], []
    for _, marker in sorted(view.committed.items()):
        for _, vectors, table in live_batches(view, marker, ["key"]):
            keys += table["key"].to_pylist()
            parts.append(vectors)
    return keys, np.concatenate(parts)


def texts_of(view: StoreView, keys: list[str], captions: Path, most: int | None) -> Texts:
    """Embed the captions (`most` of an image) and the other texts with a store's text tower."""
    encoder: Encoder = text_encoder(view.record.encoder)
    found = {Path(key).name: texts for key, texts in read_captions(captions).items()}
    pairs = [(place, text) for place, key in enumerate(keys) for text in found[Path(key).name][:most]]
    generic = scene_texts if view.record.encoder.source.model == EMBEDDED else built_in_texts
    return Texts(
        captions=encoder.encode_texts([text for _, text in pairs]),
        images=np.array([place for place, _ in pairs]),
        absurd=encoder.encode_texts(absurd_texts()),
        ordinary=encoder.encode_texts(list(ORDINARY_TEXTS)),
        generic=encoder.encode_texts(generic(NUM_GENERIC)),
    )


def half(work: Path, vectors_NE: np.ndarray, texts: Texts, with_others: bool, seed: int = 0) -> Case:
    """Leave out half of the images."""
    is_in_store = np.zeros(len(vectors_NE), bool)
    is_in_store[np.random.default_rng(seed).permutation(len(vectors_NE))[: len(vectors_NE) // 2]] = True
    return Case(searchable(work, vectors_NE[is_in_store]), texts, is_in_store, with_others)


def searchable(work: Path, vectors_NE: np.ndarray) -> IndexSearcher:
    """An exact index of these vectors."""
    root = Path(tempfile.mkdtemp(dir=work)) / "store"
    vector_store(root, vectors_NE, 20_000, precision="fp32")
    build_index(IndexSettings(store=root, recipe="Flat"))
    return open_index(StoreView.open(root))


def real_case(work: Path, test: Case) -> Case:
    """The test images that are in the store among the shared vectors, which are of the same model."""
    own = test.index.rows.vectors(np.arange(test.index.rows.num_rows))
    others_NE = embeddings_of(SHARED / "data/vectors/images.parquet")
    return Case(searchable(work, np.concatenate([others_NE, own])), test.texts, test.is_in_store)


def above_line_of_real_texts(real: Case) -> float:
    """Share of the 25,000 shared texts (of images that are in the store, and of others like them)."""
    queries_QE = embeddings_of(SHARED / "data/vectors/text_queries.parquet")
    return float((real.measured(queries_QE)["relevance"] > WEAK).mean())


def times(real: Case) -> dict[str, float]:
    """Microseconds per query of relevance, K = 10: single queries (median), and in a batch (the best of five)."""
    queries_QE = embeddings_of(SHARED / "data/vectors/text_queries.parquet")
    scores_QK = np.zeros((len(queries_QE), 10), np.float32)
    singles: dict[str, list[float]] = {"texts": [], "own spread": []}
    batches: dict[str, list[float]] = {"texts": [], "own spread": []}
    for _ in range(5):
        for name, spread in (("texts", real.spread), ("own spread", None)):
            started = time.perf_counter()
            real.background.relevance(queries_QE, scores_QK, spread)
            batches[name].append((time.perf_counter() - started) / len(queries_QE))
    for row in range(TIMED):
        for name, spread in (("texts", real.spread), ("own spread", None)):
            started = time.perf_counter()
            real.background.relevance(queries_QE[row : row + 1], scores_QK[row : row + 1], spread)
            singles[name].append(time.perf_counter() - started)
    started = time.perf_counter()
    Background(real.index)
    return {
        **{f"one query, {name}, us": 1e6 * float(np.median(values)) for name, values in singles.items()},
        **{f"in a batch, {name}, us": 1e6 * min(values) for name, values in batches.items()},
        "reading the sample, ms": 1000 * (time.perf_counter() - started),
    }


def show(results: dict[str, object]) -> None:
    """Print the table of `configs/bench/README.md`."""
    for name, report in (results["stores"] | {"two models": results["two models"]}).items():
        for measure in report["absurd"]:
            cells = []
            for kind in ("left out", "absurd"):
                if kind in report:
                    one = report[kind][measure]
                    low, high = one["interval"]
                    cells.append(f"{one['auc']:.3f} ({one['difference']:+.3f}: {low:+.3f}..{high:+.3f})")
                else:
                    cells.append("")
            print(f"| {name} | {measure} | {' | '.join(cells)} |")
        print([report.get(f"{measure} above the line", "") for measure in ("relevance", "cosine")])
    print(results["real texts above the line"], results["time"])


if __name__ == "__main__":
    main()
