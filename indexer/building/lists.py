"""Build an IVF index: centroids by k-means, the list of each row, then the codes. Each step is kept on disk.

Shapes: N rows, E width after the recipe's transforms, L lists.
"""

import json
import os
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from indexer.building.plan import BuildPlan, OnStep, sample_positions
from indexer.files import save_index
from indexer.recipes.recipe import Recipe, in_final_form, train_codes, transformed, transforms_of, unwrapped
from indexer.rows.mapped import MappedRows
from pipeline.durable.atomic import write_atomically, write_json

CENTROIDS_FILE, TRAINED_FILE, LISTS_FILE, ASSIGNED_FILE = "centroids.npz", "trained.index", "lists.i32", "assigned.json"


def build_lists(
    plan: BuildPlan,
    recipe: Recipe,
    rows: MappedRows,
    folder: Path,
    on_progress: OnStep,
) -> faiss.Index:
    """Build the index of a plan, or continue with it.

    Args:
        plan: The plan.
        recipe: Its recipe, of the kind LISTS.
        rows: The rows.
        folder: Where the steps are kept.
        on_progress: Called with the step's name, what is done of it, and its total.

    Returns:
        The index over positions.
    """
    index = _trained(plan, recipe, rows, folder, on_progress)
    inner = unwrapped(index)
    lists_N = _assign(plan, index, rows, folder, on_progress)
    for start, vectors in rows.chunks(plan.chunk_rows):
        positions = np.arange(start, start + len(vectors), dtype=np.int64)
        rows_NE, lists = transformed(index, vectors), lists_N[start : start + len(vectors)].astype(np.int64)
        inner.add_core(len(vectors), faiss.swig_ptr(rows_NE), faiss.swig_ptr(positions), faiss.swig_ptr(lists))
        on_progress("codes", start + len(vectors), rows.num_rows)
    index.ntotal = inner.ntotal
    return in_final_form(index, recipe)


def _trained(
    plan: BuildPlan,
    recipe: Recipe,
    rows: MappedRows,
    folder: Path,
    on_progress: OnStep,
) -> faiss.Index:
    path = folder / TRAINED_FILE
    if path.exists():
        return faiss.read_index(str(path))
    index = faiss.index_factory(rows.dim, recipe.building, faiss.METRIC_INNER_PRODUCT)
    inner = unwrapped(index)
    if recipe.by_residual is not None:
        inner.by_residual = recipe.by_residual
    sample = rows.vectors(sample_positions(rows.num_rows, plan.num_train, plan.seed))
    for transform in transforms_of(index):
        if not transform.is_trained:
            transform.train(sample)
    centroids = _centroids(plan, transformed(index, sample), inner.nlist, folder, on_progress)
    faiss.omp_set_num_threads(1)  # a graph over the centroids differs with the order of its threads
    inner.quantizer.train(centroids)
    inner.quantizer.add(centroids)
    faiss.omp_set_num_threads(plan.threads)
    train_codes(index, sample)  # what is left to train
    write_atomically(path, lambda temporary: save_index(index, temporary))
    return index


def _centroids(plan: BuildPlan, sample: np.ndarray, num_lists: int, folder: Path, on_progress: OnStep) -> np.ndarray:
    """Centroids (float32 [L, E]) by spherical k-means, FAISS's own for inner products; kept after each iteration."""
    path, done = folder / CENTROIDS_FILE, 0
    first = np.random.default_rng(plan.seed).choice(len(sample), num_lists, replace=False)
    centroids = sample[np.sort(first)]
    if path.exists():
        with np.load(path) as kept:
            done, centroids = int(kept["iterations"]), kept["centroids"]
    for iteration in range(done, plan.iterations):
        kmeans = faiss.Kmeans(
            sample.shape[1], num_lists, niter=1, spherical=True, seed=plan.seed + iteration,
            min_points_per_centroid=1, max_points_per_centroid=len(sample),
        )  # fmt: skip
        kmeans.train(sample, init_centroids=centroids)
        centroids = kmeans.centroids
        write_atomically(path, partial(_save, iterations=iteration + 1, centroids=centroids))
        on_progress("k-means", iteration + 1, plan.iterations)
    return np.ascontiguousarray(centroids)


def _save(path: Path, iterations: int, centroids: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez(file, iterations=iterations, centroids=centroids)


def _assign(
    plan: BuildPlan,
    index: faiss.Index,
    rows: MappedRows,
    folder: Path,
    on_progress: OnStep,
) -> np.ndarray:
    """The list of each row (int32 [N])."""
    path, state = folder / LISTS_FILE, folder / ASSIGNED_FILE
    done = json.loads(state.read_text())["num_rows"] if state.exists() else 0
    quantizer = unwrapped(index).quantizer
    with path.open("r+b" if done else "w+b") as file:
        file.truncate(4 * done)
        file.seek(4 * done)
        for start, vectors in rows.chunks(plan.chunk_rows, done):
            _, lists = quantizer.search(transformed(index, vectors), 1)
            file.write(lists.ravel().astype(np.int32).tobytes())
            file.flush()
            os.fsync(file.fileno())
            write_json(state, {"num_rows": start + len(vectors)})
            on_progress("lists", start + len(vectors), rows.num_rows)
    return np.fromfile(path, np.int32)
