"""Recipes: `faiss.index_factory` strings over positions. Every recipe's candidates are scored from the vector file."""

import re
from dataclasses import dataclass
from enum import StrEnum

import faiss
import numpy as np

from pipeline.errors import ConfigError, first_line

_FAST_SCAN = re.compile(r"PQ(\d+)x4fs(r?)(_\d+)?|RaBitQfs(\d*)(_\d+)?")


class Kind(StrEnum):
    """What an index does with the effort that a search is given."""

    EXACT = "exact"
    """Compares every vector; there is no effort."""
    LISTS = "lists"
    """IVF: the effort is nprobe, the number of lists to scan."""
    GRAPH = "graph"
    """HNSW: the effort is efSearch."""
    OTHER = "other"
    """Searches as FAISS's defaults say."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A factory string, and what it means."""

    factory: str
    kind: Kind
    num_lists: int = 0

    @property
    def building(self) -> str:
        """The factory string in whose form the index is built.

        Fast-scan lists take rows only without their precomputed lists, so they are built as plain lists and converted.
        """
        return _FAST_SCAN.sub(
            lambda found: f"PQ{found[1]}x4np" if found[1] else f"RaBitQ{found[4] or ''}", self.factory
        )

    @property
    def by_residual(self) -> bool | None:
        """Whether a fast-scan PQ codes the difference to its list's centroid; None for any other code."""
        found = _FAST_SCAN.search(self.factory)
        return bool(found[2]) if found and found[1] else None


def parse_recipe(factory: str, dim: int) -> Recipe:
    """Check a factory string by building the empty index.

    Raises:
        ConfigError: If FAISS refuses it, or it cannot hold positions, or it would score what we score ourselves.
    """
    if re.search(r"IDMap|Refine|RFlat", factory):
        raise ConfigError(
            f"--recipe {factory}: ids and re-scoring are not part of a recipe, every recipe has them; leave out "
            "IDMap, Refine and RFlat"
        )
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ConfigError(
            f"--recipe {factory}: FAISS refuses it for inner products of {dim} dimensions ({reason_of(error)}); "
            "see https://github.com/facebookresearch/faiss/wiki/The-index-factory"
        ) from error
    inner = unwrapped(index)
    if inner.metric_type != faiss.METRIC_INNER_PRODUCT:  # the factory passes the metric over for some
        raise ConfigError(f"--recipe {factory}: FAISS has it for Euclidean distances alone, not for inner products")
    if isinstance(inner, faiss.IndexIVF):
        return Recipe(factory, Kind.LISTS, inner.nlist)
    if isinstance(inner, faiss.IndexHNSW):
        return Recipe(factory, Kind.GRAPH)
    return Recipe(factory, Kind.EXACT if factory in ("Flat", "SQfp16") else Kind.OTHER)


def transforms_of(index: faiss.Index) -> list[faiss.VectorTransform]:
    """The transforms of an IndexPreTransform, in their order; none of any other index."""
    chain = index.chain if isinstance(index, faiss.IndexPreTransform) else None
    return [chain.at(number) for number in range(chain.size())] if chain else []


def transformed(index: faiss.Index, vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, E] as the index inside an IndexPreTransform gets them (float32)."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    for transform in transforms_of(index):
        vectors = transform.apply(vectors)
    return np.ascontiguousarray(vectors)


def unwrapped(index: faiss.Index) -> faiss.Index:
    """The index inside an IndexPreTransform, or the index itself."""
    index = faiss.downcast_index(index)
    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index


def in_final_form(index: faiss.Index, recipe: Recipe) -> faiss.Index:
    """An index of a recipe from one in its form for building."""
    if recipe.building == recipe.factory:
        return index
    inner = unwrapped(index)
    fast = faiss.IndexIVFPQFastScan if isinstance(inner, faiss.IndexIVFPQ) else faiss.IndexIVFRaBitQFastScan
    converted = fast(inner)
    converted.referenced_objects = [index, inner]  # its quantizer is theirs
    if not transforms_of(index):
        return converted
    outer = faiss.IndexPreTransform(converted)
    for transform in reversed(transforms_of(index)):
        outer.prepend_transform(transform)
    outer.referenced_objects = [index, converted]
    return outer


def train_codes(index: faiss.Index, sample_NE: np.ndarray) -> None:
    """Train an index on a sample (float32 [N, E]), on one thread: the many small steps do not gain from a second."""
    inner, threads = unwrapped(index), faiss.omp_get_max_threads()
    if hasattr(inner, "pq"):
        inner.pq.cp.min_points_per_centroid = 1  # FAISS prints a warning for each of its many small k-means otherwise
    faiss.omp_set_num_threads(1)
    try:
        index.train(sample_NE)
    finally:
        faiss.omp_set_num_threads(threads)


def scan_list_by_list(index: faiss.Index) -> None:
    """Let fast-scan PQ lists be scanned one after another into a reservoir, FAISS's implementation 11.

    The default collects results from groups of lists. On 113,802 x 192 vectors it took 1.25 times as long for one
    query, and 1.1 times for batches (2 cores of an Intel Xeon, FAISS 1.15.1, 2026-11-26).
    """
    inner = unwrapped(index)
    if isinstance(inner, faiss.IndexIVFPQFastScan):
        inner.implem = 11


def can_leave_rows_out(index: faiss.Index) -> bool:
    """Whether a search of an index can be told which rows it may find."""
    inner = unwrapped(index)
    if isinstance(inner, faiss.IndexIVF):
        return not isinstance(inner, faiss.IndexIVFAdditiveQuantizer)
    return isinstance(inner, (faiss.IndexFlat, faiss.IndexScalarQuantizer, faiss.IndexRaBitQ, faiss.IndexHNSW))


def reason_of(error: RuntimeError) -> str:
    """What FAISS says is wrong, without the place in its source."""
    # FAISS: "Error in <function> at <file>:<line>: <reason>", or "...: Error: '<condition>' failed: <reason>"
    return first_line(RuntimeError(re.sub(r"^Error in .* at \S+:\d+: (Error: )?", "", str(error), flags=re.DOTALL)))
