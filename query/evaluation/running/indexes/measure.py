"""The last steps of a decomposition: each operating point of each index, ranked and timed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from indexer.recipes.recipe import parse_recipe
from pipeline.errors import ConfigError, StoreError
from query.evaluation.grid.names import adapted_twin
from query.evaluation.grid.read import Grid
from query.evaluation.ranking.found import answers_found
from query.evaluation.raw.head import holds
from query.evaluation.raw.heads import head_of
from query.evaluation.raw.ranks import write_ranks
from query.evaluation.record import ConditionRecord, SweepRecord
from query.evaluation.running.galleries import Gallery
from query.evaluation.running.indexes.build import AUTO, BuiltIndex, built, condition_of, folder_of
from query.evaluation.running.indexes.timed import NUM_QUERIES, TimedPoint, time_queries
from query.evaluation.running.kept.work import Work
from query.evaluation.running.ranked import NUM_HITS, near_duplicates
from query.evaluation.running.texts import query_vectors
from query.evaluation.running.towers import Tower

KIND = "files of ranks of indexes"
LEAST_HITS = 10
"""Hits that an index is asked for, at least; otherwise, as many as the largest k. More would make it search harder than
whoever asks for k hits gets to see."""


def check_indexes(grid: Grid, towers: Sequence[Tower], galleries: Sequence[Gallery]) -> None:
    """Check the recipes that a grid names, before anything is embedded.

    Raises:
        ConfigError: If FAISS refuses one for the vectors of a condition, or it has more lists than a gallery has
            images; names the line of the grid.
    """
    named = [
        (("decompose", "indexes", number, "recipe"), keys.recipe)
        for number, keys in enumerate(grid.keys.decompose.indexes if grid.keys.decompose else ())
        if keys.recipe != AUTO
    ]
    for loc, factory in named:
        for tower in decomposed_last(grid, towers):
            try:
                num_lists = parse_recipe(factory, tower.encoder.spec.embedding_dim).num_lists
            except ConfigError as error:
                raise grid.error(loc, str(error).removeprefix(f"--recipe {factory}: "), factory) from error
            for gallery in _largest(galleries):
                num_images = len(gallery.data.entries)
                if num_lists > num_images:
                    problem = f"it has {num_lists} lists for the {num_images} images of {gallery.data.name!r}"
                    raise grid.error(loc, f"{problem}; give a recipe of fewer lists", factory)


def measure_indexes(
    work: Work, grid: Grid, record: SweepRecord, towers: Sequence[Tower], galleries: Sequence[Gallery]
) -> SweepRecord:
    """Build the indexes that a grid decomposes into, rank their answers and time their queries.

    Their conditions hold image retrieval only: an index is over images.

    Returns:
        The record with a condition for each operating point.

    Raises:
        ConfigError: If a recipe cannot be used; names the line of the grid.
        StoreError: If an index does not fit its gallery, or the folder cannot be written.
    """
    if not grid.keys.decompose or not grid.keys.decompose.indexes:
        return record
    conditions, timed, warnings, is_new = [], {}, [], False
    largest = _largest(galleries)
    for gallery in largest:
        on = f", {gallery.data.name}" if len(largest) > 1 else ""
        for tower in decomposed_last(grid, towers):
            parent = record.condition(tower.condition.key)
            for number in range(len(grid.keys.decompose.indexes)):
                index = _built(work, grid, number, tower, parent, gallery)
                is_new |= index.is_new
                warnings += index.warnings(f"decompose.indexes.{number}", grid.keys.decompose.indexes[number])
                queries_QE = query_vectors(work, tower.encoder.text_space, gallery.data)
                found = [condition_of(index, point, parent, on) for point in index.points]
                _rank(work, grid, record, tower, gallery, index, found)
                for condition, point in zip(found, index.points, strict=True):
                    timed[condition.key] = TimedPoint(index.searcher, point, queries_QE[:NUM_QUERIES])
                conditions += found
    time_queries(work, timed, grid.keys.rounds, is_new)
    conditions = {condition.key: condition for condition in [*record.conditions, *conditions]}  # `auto` may repeat one
    warnings = dict.fromkeys([*record.warnings, *warnings])
    return record.model_copy(update={"conditions": list(conditions.values()), "warnings": list(warnings)})


def decomposed_last(grid: Grid, towers: Sequence[Tower]) -> list[Tower]:
    """The last tower of each decomposition: the pruned one, or the same with the adapter."""
    by_key = {tower.condition.key: tower for tower in towers}
    conditions = [tower.condition for tower in towers]
    adapter = grid.as_spelled(grid.keys.decompose.adapter)
    found = []
    for condition in conditions:
        if condition.name in grid.keys.decompose.conditions:
            twin = adapted_twin(conditions, condition, adapter) if adapter else None
            found.append(by_key[(twin or condition).key])
    return found


def _largest(galleries: Sequence[Gallery]) -> list[Gallery]:
    """Of each data set, the gallery that is decomposed: with its distractors, if it has any."""
    return list({gallery.parts[0].name: gallery for gallery in galleries}.values())


def _built(work: Work, grid: Grid, number: int, tower: Tower, parent: ConditionRecord, gallery: Gallery) -> BuiltIndex:
    keys, data = grid.keys.decompose.indexes[number], gallery.data
    root = folder_of(work.folder.indexes, data.sha256, gallery.images_sha256, tower.fingerprint, keys)
    vectors_NE = gallery.vectors(work.folder, parent.key)
    queries_QE = query_vectors(work, tower.encoder.text_space, data)
    with _located(grid, number):
        return built(root, vectors_NE, queries_QE, parent, keys)


@contextmanager
def _located(grid: Grid, number: int) -> Iterator[None]:
    try:
        yield
    except (ConfigError, StoreError) as error:
        line = grid.line_of(("decompose", "indexes", number))
        raise type(error)(f"{grid.path}, line {line}: decompose.indexes.{number}: {error}") from error


def _rank(
    work: Work,
    grid: Grid,
    record: SweepRecord,
    tower: Tower,
    gallery: Gallery,
    index: BuiltIndex,
    conditions: Sequence[ConditionRecord],
) -> None:
    data = next(found for found in record.data if found.name == gallery.data.name)
    files = [
        (work.folder.ranks(condition.key, data.name), head_of(record, condition, data, "ranks"))
        for condition in conditions
    ]
    missing = [number for number, (path, head) in enumerate(files) if index.is_new or not holds(path, head)]
    work.tally.kept[KIND] += len(files) - len(missing)
    if not missing:
        return
    queries_QE = query_vectors(work, tower.encoder.text_space, gallery.data)
    alike_N = near_duplicates(work, record, gallery)
    for number in missing:
        scores_QF, ids_QF = index.searcher.search(
            queries_QE, max(LEAST_HITS, *grid.keys.ks), point=index.points[number]
        )
        pairs_P2, num_items = gallery.data.pairs_P2, len(gallery.data.entries)
        found = answers_found(
            ids_QF, scores_QF, pairs_P2, num_items, k=NUM_HITS, epsilon=record.grid["epsilon"], alike_N=alike_N
        )
        path, head = files[number]
        write_ranks(path, {"image_retrieval": found}, head)
        work.tally.measured[KIND] += 1
