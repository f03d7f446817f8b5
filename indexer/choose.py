"""Choose the recipe of a new index: the user's, or the planner's, with what recall costs on a sample of the store."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from indexer.building.plan import OnStep, sample_positions
from indexer.planning.calibration import calibrate
from indexer.planning.pilot import MAX_ROWS, measure_pilot
from indexer.planning.planner import IndexPlan, Limits, Machine, plan
from indexer.proof.queries import TextQueries
from indexer.recipes.recipe import Recipe, parse_recipe
from indexer.rows.collect import live_batches, num_row_groups
from indexer.settings import IndexSettings, memory_of_machine
from pipeline.store.view import StoreView

PILOT_QUERIES = 500
FEW_NUMBERS = 2_000_000
"""Rows times dimensions that any machine compares within a millisecond or two; nothing is measured first."""

_ROWS_PER_LIST, _LEAST_TRAINED = 64, 20_000


@dataclass(frozen=True, slots=True)
class Choice:
    """What to build, and why."""

    recipe: Recipe
    num_train: int
    reason: str
    plan: IndexPlan | None
    """The planner's candidates. None if the user chose, or there was nothing to choose."""


def choose(
    settings: IndexSettings,
    view: StoreView,
    text_queries: Callable[[], TextQueries | str],
    on_step: OnStep = lambda step, num_done, num_total: None,
) -> Choice:
    """Choose a recipe for all rows of a store.

    Args:
        settings: The recipe, or the limits to choose it by.
        view: The store.
        text_queries: Makes queries for the pilot index. Not called if comparing every vector is fast enough.
        on_step: Called with progress.

    Raises:
        ConfigError: If the recipe cannot be used, or no recipe keeps to the limits.
    """
    dim = view.record.encoder.embedding_dim
    if settings.recipe:
        recipe = parse_recipe(settings.recipe, dim)
        return Choice(recipe, max(_LEAST_TRAINED, _ROWS_PER_LIST * recipe.num_lists), "chosen by --recipe", None)
    markers = view.committed.values()
    # compaction removes rows, but keeps their tombstones
    num_deleted = max(0, len(view.deleted) - sum(marker.num_removed for marker in markers))
    num_rows = max(0, sum(marker.num_ok for marker in markers) - num_deleted)
    is_half = view.record.encoder.precision != "fp32"
    if num_rows * dim <= FEW_NUMBERS and not settings.max_index_memory and not settings.max_build_memory:
        exact = parse_recipe("SQfp16" if is_half else "Flat", dim)
        return Choice(exact, 0, f"{exact.factory} compares every vector, and there are few", None)
    limits = Limits(
        min_recall=settings.recall,
        max_query_ms=settings.max_query_ms,
        max_index_memory=settings.max_index_memory,
        max_build_memory=settings.max_build_memory,
    )
    machine = Machine(threads=settings.num_threads, memory_bytes=memory_of_machine())
    on_step("plan", 0, 2)
    folder = view.store.index_dir
    speed = calibrate(dim, folder if folder.is_dir() else view.root)  # a plan alone makes no folder
    on_step("plan", 1, 2)
    found = plan(num_rows, dim, limits, machine, speed, is_half=is_half)
    if not found.winner.shape.is_exact and not isinstance(queries := text_queries(), str):
        pilot = measure_pilot(sample_vectors(view, settings.seed), queries.tuning_QE[:PILOT_QUERIES], settings.seed)
        found = plan(num_rows, dim, limits, machine, speed, pilot, is_half)
    on_step("plan", 2, 2)
    return Choice(parse_recipe(found.winner.recipe, dim), found.winner.num_train, found.reason, found)


def sample_vectors(view: StoreView, seed: int, num_rows: int = MAX_ROWS) -> np.ndarray:
    """A seeded sample of a store's vectors (float32 [n, E]): whole row groups, spread over all shards."""
    groups = [
        (marker, group) for _, marker in sorted(view.committed.items()) for group in range(num_row_groups(view, marker))
    ]
    total = sum(marker.num_ok for marker in view.committed.values())
    share = max(1, round(len(groups) * min(1.0, num_rows / max(1, total))))
    dim = view.record.encoder.embedding_dim
    found = [np.empty((0, dim), np.float32)]
    for place in sample_positions(len(groups), share, seed):
        marker, group = groups[place]
        found += [vectors for _, vectors, _ in live_batches(view, marker, groups=[group])]
    vectors = np.concatenate(found)
    return vectors[sample_positions(len(vectors), min(num_rows, len(vectors)), seed)]
