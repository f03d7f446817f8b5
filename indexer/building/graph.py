"""Build an index that is not IVF: flat codes in one go, a graph chunk by chunk with a copy on disk after each."""

from pathlib import Path

import faiss
import numpy as np

from indexer.building.plan import BuildPlan, OnStep, sample_positions
from indexer.files import save_index
from indexer.recipes.recipe import Kind, Recipe, train_codes, unwrapped
from indexer.rows.mapped import MappedRows
from pipeline.durable.atomic import write_atomically

GRAPH_FILE = "graph.index"


def build_flat(plan: BuildPlan, recipe: Recipe, rows: MappedRows, on_progress: OnStep) -> faiss.Index:
    """Build an index of codes without lists or links."""
    index = _trained(plan, recipe, rows)
    for start, vectors in rows.chunks(plan.chunk_rows):
        index.add(np.ascontiguousarray(vectors, np.float32))
        on_progress("vectors", start + len(vectors), rows.num_rows)
    return index


def build_graph(
    plan: BuildPlan,
    recipe: Recipe,
    rows: MappedRows,
    folder: Path,
    on_progress: OnStep,
) -> faiss.Index:
    """Build an HNSW index on one thread, or continue with it.

    FAISS draws the levels of the rows from a generator that a saved index does not keep, so they are drawn here, for
    all rows at once. Then an index that was saved and loaded in between has the bytes of one that was not.
    """
    assert recipe.kind is Kind.GRAPH
    path = folder / GRAPH_FILE
    index = faiss.read_index(str(path)) if path.exists() else _trained(plan, recipe, rows)
    hnsw = unwrapped(index).hnsw
    levels_N = _levels(hnsw, rows.num_rows, plan.seed)
    faiss.omp_set_num_threads(1)  # the links depend on the order in which threads add rows
    try:
        for start, vectors in rows.chunks(plan.chunk_rows, index.ntotal):
            stop = start + len(vectors)
            faiss.copy_array_to_vector(levels_N[:stop], hnsw.levels)
            index.add(np.ascontiguousarray(vectors, np.float32))
            if stop < rows.num_rows:
                write_atomically(path, lambda temporary: save_index(index, temporary))
            on_progress("graph", stop, rows.num_rows)
    finally:
        faiss.omp_set_num_threads(plan.threads)
    return index


def _trained(plan: BuildPlan, recipe: Recipe, rows: MappedRows) -> faiss.Index:
    """The empty index of a recipe, with its codes trained."""
    index = faiss.index_factory(rows.dim, recipe.factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        train_codes(index, rows.vectors(sample_positions(rows.num_rows, plan.num_train, plan.seed)))
    return index


def add_to_graph(index: faiss.Index, vectors: np.ndarray, seed: int) -> None:
    """Add rows (float32 [n, E]) to a graph that is complete, with levels of their own draw."""
    hnsw, threads = unwrapped(index).hnsw, faiss.omp_get_max_threads()
    levels = np.concatenate([faiss.vector_to_array(hnsw.levels), _levels(hnsw, len(vectors), seed)])
    faiss.copy_array_to_vector(levels, hnsw.levels)
    faiss.omp_set_num_threads(1)
    try:
        index.add(np.ascontiguousarray(vectors, np.float32))
    finally:
        faiss.omp_set_num_threads(threads)


def _levels(hnsw: faiss.HNSW, num_rows: int, seed: int) -> np.ndarray:
    """The number of levels of each row (int32 [N], from 1), with the probabilities of this graph."""
    bounds = np.cumsum(faiss.vector_to_array(hnsw.assign_probas))
    drawn = np.random.default_rng(seed).random(num_rows)
    return (np.minimum(np.searchsorted(bounds, drawn, side="right"), len(bounds) - 1) + 1).astype(np.int32)
