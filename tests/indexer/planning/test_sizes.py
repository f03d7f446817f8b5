"""Predicted bytes of index files against those of indexes that are really built."""

import subprocess
import sys

import faiss
import numpy as np
import pytest

from indexer.planning.sizes import CODES, Shape, index_bytes, opening_memory, search_memory

SIZES = [(300, 64), (2_000, 192), (6_000, 100), (20_000, 48)]


def unit_vectors(num_rows, dim):
    # clustered, so that lists differ in length as real ones do
    rng = np.random.default_rng(num_rows)
    centers = rng.standard_normal((50, dim))
    vectors = centers[rng.integers(0, 50, num_rows)] + rng.standard_normal((num_rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def built(shape, vectors):
    index = faiss.index_factory(vectors.shape[1], shape.factory(vectors.shape[1]), faiss.METRIC_INNER_PRODUCT)
    if shape.num_lists:
        inner = faiss.extract_index_ivf(index)
        inner.cp.niter, inner.cp.min_points_per_centroid = 2, 1
        inner.quantizer.add(vectors[:: len(vectors) // shape.num_lists][: shape.num_lists])
        if hasattr(inner, "pq"):
            inner.pq.cp.niter, inner.pq.cp.min_points_per_centroid = 1, 1
    index.train(vectors[:1_000])
    index.add(vectors)
    return index


def shapes_of(num_rows, dim):
    lists = max(4, num_rows // 64)
    names = [name for name, code in CODES.items() if code.takes(dim)]
    return [Shape("fp32"), Shape("fp16"), Shape("fp16", is_graph=True), *(Shape(name, lists) for name in names)]


@pytest.mark.parametrize(("num_rows", "dim"), SIZES)
def test_bytes_of_built_indexes(num_rows, dim):
    vectors = unit_vectors(num_rows, dim)
    for shape in shapes_of(num_rows, dim):
        found = len(faiss.serialize_index(built(shape, vectors)))
        predicted = index_bytes(shape, num_rows, dim)
        # 2 %; the blocks of a few lists and the levels of a small graph are a matter of chance
        assert predicted == pytest.approx(found, rel=0.02 if num_rows >= 2_000 else 0.05), shape
        assert search_memory(shape, num_rows, dim) > found


def test_array_lists_are_predicted_to_the_byte():
    vectors = unit_vectors(2_000, 64)
    for name in ("fp16", "SQ8"):
        shape = Shape(name, 20)
        predicted, found = index_bytes(shape, 2_000, 64), len(faiss.serialize_index(built(shape, vectors)))
        assert abs(predicted - found) < 100


@pytest.mark.parametrize("dim", [9, 10, 12, 24, 512])
def test_every_shape_is_one_that_faiss_makes(dim):
    for shape in shapes_of(2_000, dim):
        index = faiss.index_factory(dim, shape.factory(dim), faiss.METRIC_INNER_PRODUCT)
        inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
        assert getattr(inner, "nlist", 0) == shape.num_lists


OPENED = """
import sys
from pathlib import Path

from indexer.files import load_index

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))

before = anonymous()
index = load_index(Path(sys.argv[1]))
print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_opening_reads_fast_scan_lists_and_maps_all_others(tmp_path):
    num_rows, dim = 40_000, 512
    vectors = unit_vectors(num_rows, dim)
    for shape in (Shape("PQ4", 50), Shape("SQ8", 50)):
        path = tmp_path / "index"
        faiss.write_index(built(shape, vectors), str(path))
        command = [sys.executable, "-c", OPENED, str(path)]
        grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        predicted = opening_memory(shape, num_rows, dim)
        assert predicted == pytest.approx(grown, rel=0.25, abs=1e6), shape
        assert (grown > path.stat().st_size) == CODES[shape.code].is_fast_scan
