"""Tune plain FAISS on the shared vectors, and time it: what an index has to beat.

    python tests/drills/index/plain_faiss.py --json plain_faiss.json

The baselines are `IVFn,SQfp16` as `index_factory` makes and trains it, each at the least nprobe that reaches recall@10
of 0.99 with the texts to tune with; then exact search in float32. The recall is reported on other texts. Texts are
searched one at a time, on one thread, in warm blocks of 100, and the conditions take turns block by block. The fastest
IVF is the baseline.

With `--recipe STRING@K2`, other index strings take part: their K2 best candidates get exact scores from the mapped
float16 vectors.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.drills.index.measure import (
    Condition,
    K,
    Search,
    exact,
    interleaved,
    least,
    real_vectors,
    recalls,
    summary,
)

NUM_LISTS = (512, 1024, 2048, 4096)
MAX_EF_SEARCH = 2048
ONE_QUERY = 11
"""The fast-scan loop (`implem`) that is fastest for one query and hundreds of candidates; FAISS does not choose it."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Text vectors and the ids that exact search finds for them."""

    queries_QE: np.ndarray
    truth_QK: np.ndarray

    @classmethod
    def of(cls, images_NE: np.ndarray, queries_QE: np.ndarray) -> "Texts":
        return cls(queries_QE, exact(images_NE, queries_QE))

    def recalls_of(self, search: Search) -> np.ndarray:
        """Recall@10 of each text."""
        return recalls(search(self.queries_QE), self.truth_QK)


def main() -> None:
    arguments = parse_arguments()
    images_NE, tuning_QE, others_QE = real_vectors()
    others_QE = others_QE[: arguments.queries]
    tuning, others = Texts.of(images_NE, tuning_QE), Texts.of(images_NE, others_QE)
    conditions = plain_conditions(images_NE, tuning, others, arguments.recall, arguments.work)
    rescorer = mapped_vectors(images_NE, arguments.work)
    for recipe in arguments.recipe:
        string, _, candidates = recipe.partition("@")
        index = built(string, images_NE, arguments.work)
        rescored = rescored_search(index, rescorer, int(candidates))
        conditions += tuned(recipe, rescored, highest(index), tuning, others, arguments.recall)
    times = interleaved(conditions, others_QE[: arguments.timed])
    results = [{"name": condition.name} | condition.detail | times[condition.name] for condition in conditions]
    best = min((result for result in results if result["name"].endswith("SQfp16")), key=lambda result: result["cpu_ms"])
    for result in sorted(results, key=lambda result: result["cpu_ms"]):
        ratios = {key: result[key] / best[key] for key in ("ms", "cpu_ms")}
        result["over_baseline"] = ratios
        print(
            f"{result['name']} at {result['setting']}: recall@10 {result['recall']:.4f}, p5 {result['p5']:.1f}, "
            f"{result['ms']:.3f} ms ({result['cpu_ms']:.3f} ms of CPU), {ratios['ms']:.2f} ({ratios['cpu_ms']:.2f}) of "
            "the baseline"
        )
    if arguments.json:
        summary_ = {"recall": arguments.recall, "baseline": best["name"], "conditions": results}
        arguments.json.write_text(json.dumps(summary_, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--recipe", action="append", default=[], help="STRING@K2, such as IVF1024,PQ96x4fs@300")
    parser.add_argument("--queries", type=int, default=4000, help="texts to report the recall on")
    parser.add_argument("--timed", type=int, default=1000, help="texts to time, in blocks of 100")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clipsieve-plain-faiss")
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args()


def plain_conditions(images_NE: np.ndarray, tuning: Texts, others: Texts, recall: float, work: Path) -> list[Condition]:
    """The tuned baselines and exact search, to be timed in turn with other conditions.

    Args:
        images_NE: The vectors to search.
        tuning: Texts to find nprobe with.
        others: Texts to report the recall on.
        recall: Recall@10 that nprobe must reach.
        work: Folder that keeps built indexes for the next run.
    """
    conditions = []
    for num_lists in NUM_LISTS:
        recipe = f"IVF{num_lists},SQfp16"
        index = built(recipe, images_NE, work)
        conditions += tuned(recipe, plain_search(index), highest(index), tuning, others, recall)
    flat = faiss.IndexFlatIP(images_NE.shape[1])
    flat.add(images_NE)
    all_found = {"setting": "all vectors", "recall": 1.0, "p5": 1.0}
    conditions.append(Condition("exact fp32", lambda queries_QE: flat.search(queries_QE, K)[1], all_found))
    return conditions


def built(recipe: str, images_NE: np.ndarray, work: Path) -> faiss.Index:
    """An index of these vectors, built as FAISS does by default, or read from an earlier run."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{recipe.replace(',', '_')}-{len(images_NE)}.index"
    if not path.exists():
        index = faiss.index_factory(images_NE.shape[1], recipe, faiss.METRIC_INNER_PRODUCT)
        if "IVF" in recipe:
            faiss.extract_index_ivf(index).cp.min_points_per_centroid = 1  # silences a warning about small lists
        index.train(images_NE)
        index.add(images_NE)
        faiss.write_index(index, str(path))
    return faiss.read_index(str(path))


def highest(index: faiss.Index) -> int:
    """The largest setting that is worth trying: half of the lists, or a long efSearch."""
    is_ivf = isinstance(index, faiss.IndexPreTransform | faiss.IndexIVF)
    return faiss.extract_index_ivf(index).nlist // 2 if is_ivf else MAX_EF_SEARCH


def parameters(index: faiss.Index, setting: int) -> faiss.SearchParameters:
    """Search parameters with this nprobe or efSearch."""
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=parameters(faiss.downcast_index(index.index), setting))
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=setting)
    return faiss.SearchParametersIVF(nprobe=setting)


def plain_search(index: faiss.Index) -> Callable[[int], Search]:
    """By setting, the search of an index as it is."""

    def at(setting: int) -> Search:
        given = parameters(index, setting)
        return lambda queries_QE: index.search(queries_QE, K, params=given)[1]

    return at


def rescored_search(index: faiss.Index, rescorer: faiss.Index, num_candidates: int) -> Callable[[int], Search]:
    """By setting, the search of an index whose candidates get exact scores."""
    if hasattr(index, "implem"):
        index.implem = ONE_QUERY
    both = faiss.IndexRefine(index, rescorer)

    def at(setting: int) -> Search:
        inner = parameters(index, setting)
        given = faiss.IndexRefineSearchParameters(k_factor=num_candidates / K, base_index_params=inner)
        return lambda queries_QE: both.search(queries_QE, K, params=given)[1]

    return at


def mapped_vectors(images_NE: np.ndarray, work: Path) -> faiss.IndexScalarQuantizer:
    """A float16 index that is mapped from its file."""
    path = work / f"vectors-{len(images_NE)}.index"
    if not path.exists():
        kind = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexScalarQuantizer(images_NE.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        index.train(images_NE[:1])
        index.add(images_NE)
        faiss.write_index(index, str(path))
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def tuned(
    name: str,
    search_at: Callable[[int], Search],
    most: int,
    tuning: Texts,
    others: Texts,
    recall: float,
) -> list[Condition]:
    """The condition at the least setting that reaches the recall, as a list; an empty one if none does."""
    setting = least(lambda value: tuning.recalls_of(search_at(value)).mean() >= recall, 1, most)
    if setting is None:
        print(f"{name}: recall@10 stays below {recall}", file=sys.stderr)
        return []
    search = search_at(setting)
    return [Condition(name, search, {"setting": setting} | summary(others.recalls_of(search)))]


if __name__ == "__main__":
    main()
