"""Tune an index with some queries, and prove its recall with others."""

from collections.abc import Callable, Sequence

import numpy as np

from indexer.building.plan import sample_positions
from indexer.manifest import IndexManifest, Proof
from indexer.opening import open_manifest
from indexer.proof.curve import DEPTH, Measured, Search, measure
from indexer.proof.queries import TextQueries
from indexer.proof.truth import exact_search
from indexer.proof.tuning import tune
from indexer.recipes.point import OperatingPoint
from indexer.recipes.recipe import Kind
from indexer.searcher import Searcher
from indexer.settings import IndexSettings
from pipeline.store.view import StoreView

UNTUNED = OperatingPoint(effort=64, candidates=100)
"""Where an index is searched that was not tuned."""
CANDIDATES = (10, 20, 50, 100, 200, 400)
TUNING_QUERIES, PROVING_QUERIES = 1_000, 5_000
"""At most so many of those that there are."""
IMAGE_QUERIES = 500


def prove(
    settings: IndexSettings,
    view: StoreView,
    manifest: IndexManifest,
    text_queries: Callable[[], TextQueries | str],
    on_step: Callable[[str, int, int], None],
) -> IndexManifest:
    """Tune and prove an index whose files are complete.

    Returns:
        The manifest with its operating point and its proof.
    """
    if manifest.kind == Kind.EXACT:
        proof = Proof(is_proven=True, reason="exact: every vector is compared")
        return manifest.model_copy(update={"proof": proof, "point": OperatingPoint()})
    if not settings.proof:
        return manifest.model_copy(update={"proof": Proof(is_proven=False, reason="no proof was asked for")})
    queries = text_queries()
    searcher = open_manifest(view, manifest, "cpu")
    if isinstance(queries, str):
        return manifest.model_copy(update={"proof": Proof(is_proven=False, reason=queries)})
    is_dead = _mask(searcher)
    tuning_QE, proving_QE = queries.tuning_QE[:TUNING_QUERIES], queries.proving_QE[:PROVING_QUERIES]
    _, tuning_QK = exact_search(searcher.rows, tuning_QE, 10, is_dead)
    on_step("proof", 1, 4)
    point, reached = tune(
        lambda point: _search_at(searcher, point), tuning_QE, tuning_QK, settings.recall,
        _max_effort(searcher), CANDIDATES,
    )  # fmt: skip
    on_step("proof", 2, 4)
    truth = exact_search(searcher.rows, proving_QE, min(DEPTH, searcher.num_rows), is_dead)
    points = _curve_points(point, _max_effort(searcher))
    text = [measure(at, _search_at(searcher, at), proving_QE, truth, True) for at in points]
    on_step("proof", 3, 4)
    image = _image_curve(searcher, points, is_dead, settings.seed)
    on_step("proof", 4, 4)
    found = next(measured for measured in text if measured.point == point)
    proof = Proof(
        is_proven=found.recall_at_10.mean >= settings.recall,
        reason=_reason(found, settings.recall, reached),
        min_recall=settings.recall,
        queries=queries.source,
        queries_sha256=queries.sha256,
        text=tuple(text),
        image=tuple(image),
    )
    return manifest.model_copy(update={"proof": proof, "point": point})


def _search_at(searcher: Searcher, point: OperatingPoint) -> Search:
    return lambda queries_QE, k: searcher.find(queries_QE, k, point=point)


def _mask(searcher: Searcher) -> np.ndarray | None:
    if not len(searcher.dead):
        return None
    is_dead = np.zeros(searcher.rows.num_rows, bool)
    is_dead[searcher.dead] = True
    return is_dead


def _max_effort(searcher: Searcher) -> int:
    if searcher.recipe.kind is Kind.LISTS:
        return searcher.recipe.num_lists
    return 4_096 if searcher.recipe.kind is Kind.GRAPH else 0


def _curve_points(point: OperatingPoint, most: int) -> list[OperatingPoint]:
    """The tuned point, and others of half, a quarter, ... and twice, four times its effort."""
    efforts = {max(1, point.effort // 4), max(1, point.effort // 2), point.effort, 2 * point.effort, 4 * point.effort}
    efforts = {min(effort, most) for effort in efforts} if most else {0}
    return [point.model_copy(update={"effort": effort}) for effort in sorted(efforts)]


def _image_curve(
    searcher: Searcher, points: Sequence[OperatingPoint], is_dead: np.ndarray | None, seed: int
) -> list[Measured]:
    """The same points with rows of the index as queries. The row itself is taken out of answers and truth."""
    positions = sample_positions(searcher.rows.num_rows, IMAGE_QUERIES, seed)
    queries_QE = searcher.rows.vectors(positions)

    def others(search: Search) -> Search:
        def search_others(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            scores, found = search(queries, k + 1)
            own = positions[: len(queries)] if len(queries) > 1 else positions[:1]
            return _without(scores, found, own)

        return search_others

    truth = others(lambda queries, k: exact_search(searcher.rows, queries, k, is_dead))(
        queries_QE, max(1, min(DEPTH, searcher.num_rows - 1))
    )
    return [measure(point, others(_search_at(searcher, point)), queries_QE, truth, False) for point in points]


def _without(scores_QK: np.ndarray, found_QK: np.ndarray, own_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave out each query's own row, or the last one where it is not among the answers."""
    is_own = found_QK == own_Q[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    shape = (len(found_QK), found_QK.shape[1] - 1)
    return scores_QK[~is_own].reshape(shape), found_QK[~is_own].reshape(shape)


def _reason(found: Measured, recall: float, reached: float) -> str:
    recall_at_10 = found.recall_at_10
    shown = f"recall@10 {recall_at_10.mean:.3f} (95 %: {recall_at_10.low:.3f} to {recall_at_10.high:.3f})"
    if recall_at_10.mean >= recall:
        return f"{shown}, {recall:g} asked"
    return f"{shown} at its best point, {recall:g} asked ({reached:.3f} on the queries that tuned it)"
