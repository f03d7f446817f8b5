"""Tune an index with some queries, and prove its recall with others."""

from collections.abc import Callable, Sequence

import numpy as np

from indexer.building.plan import OnStep, sample_positions
from indexer.manifest import IndexManifest, Proof
from indexer.opening import open_manifest
from indexer.proof.curve import DEPTH, Measured, Search, measure, recall_per_query
from indexer.proof.queries import TextQueries
from indexer.proof.truth import exact_search
from indexer.proof.tuning import tune
from indexer.recipes.point import OperatingPoint
from indexer.recipes.recipe import Kind
from indexer.searcher import IndexSearcher
from indexer.settings import IndexSettings
from pipeline.store.view import StoreView

UNTUNED = OperatingPoint(effort=64, candidates=100)
"""Where an index is searched that was not tuned."""
CANDIDATES = (10, 20, 50, 100, 200, 400, 800, 1_600)
TUNING_QUERIES, PROVING_QUERIES = 1_000, 5_000
"""At most so many of those that there are."""
IMAGE_QUERIES = 500
MARGINS = (2.5, 5.0)
"""Standard errors that the tuning queries must exceed the recall by; the second if the first left the others short."""


def prove(
    settings: IndexSettings,
    view: StoreView,
    manifest: IndexManifest,
    text_queries: Callable[[], TextQueries | str],
    on_step: OnStep,
) -> IndexManifest:
    """Tune and prove an index whose files are complete.

    Returns:
        The manifest with its operating point and its proof.
    """
    if manifest.kind == Kind.EXACT:
        proof = Proof(is_proven=True, reason="exact: every vector is compared")
        return manifest.model_copy(update={"proof": proof, "point": OperatingPoint()})
    if not manifest.num_vectors:
        return manifest.model_copy(update={"proof": Proof(is_proven=True, reason="it has no rows to find")})
    if not settings.proof:
        return manifest.model_copy(update={"proof": Proof(is_proven=False, reason="no proof was asked for")})
    queries = text_queries()
    searcher = open_manifest(view, manifest, "cpu")
    if isinstance(queries, str):
        return manifest.model_copy(update={"proof": Proof(is_proven=False, reason=queries)})
    is_dead = _mask(searcher)
    tuning_QE, proving_QE = queries.tuning_QE[:TUNING_QUERIES], queries.proving_QE[:PROVING_QUERIES]
    _, tuning_QK = exact_search(searcher.rows, tuning_QE, min(10, searcher.num_rows), is_dead)
    on_step("proof", 1, 4)
    truth = exact_search(searcher.rows, proving_QE, min(DEPTH, searcher.num_rows), is_dead)
    most = _max_effort(searcher)
    for margin in MARGINS:
        point, reached = tune(
            lambda at: _search_at(searcher, at),
            tuning_QE,
            tuning_QK,
            settings.recall,
            most,
            CANDIDATES,
            margin,
            searcher.recipe.kind is Kind.GRAPH,
        )
        if _recall(searcher, point, proving_QE, truth[1]) >= settings.recall or point.effort >= most:
            break
    on_step("proof", 2, 4)
    points = _curve_points(point, most)
    text = [measure(at, _search_at(searcher, at), proving_QE, truth, True) for at in points]
    on_step("proof", 3, 4)
    image = _image_curve(searcher, points, is_dead, settings.seed)
    on_step("proof", 4, 4)
    found = next(measured for measured in text if measured.point == point)
    proof = Proof(
        is_proven=found.recall_at_10.mean >= settings.recall,
        reason=_reason(found, settings.recall, reached, most),
        min_recall=settings.recall,
        queries=queries.source,
        queries_sha256=queries.sha256,
        text=tuple(text),
        image=tuple(image),
    )
    return manifest.model_copy(update={"proof": proof, "point": point})


def _recall(searcher: IndexSearcher, point: OperatingPoint, queries_QE: np.ndarray, true_QK: np.ndarray) -> float:
    found = _search_at(searcher, point)(queries_QE, min(10, true_QK.shape[1]))[1]
    return float(recall_per_query(found, true_QK, 10).mean())


def _search_at(searcher: IndexSearcher, point: OperatingPoint) -> Search:
    return lambda queries_QE, k: searcher.find(queries_QE, k, point=point)


def _mask(searcher: IndexSearcher) -> np.ndarray | None:
    if not len(searcher.dead):
        return None
    is_dead = np.zeros(searcher.rows.num_rows, bool)
    is_dead[searcher.dead] = True
    return is_dead


def _max_effort(searcher: IndexSearcher) -> int:
    if searcher.recipe.kind is Kind.LISTS:
        return searcher.recipe.num_lists
    return 4_096 if searcher.recipe.kind is Kind.GRAPH else 0


def _curve_points(point: OperatingPoint, most: int) -> list[OperatingPoint]:
    """The tuned point, and others of half, a quarter, ... and twice, four times its effort."""
    efforts = {max(1, point.effort // 4), max(1, point.effort // 2), point.effort, 2 * point.effort, 4 * point.effort}
    efforts = {min(effort, most) for effort in efforts} if most else {0}
    return [point.model_copy(update={"effort": effort}) for effort in sorted(efforts)]


def _image_curve(
    searcher: IndexSearcher, points: Sequence[OperatingPoint], is_dead: np.ndarray | None, seed: int
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


def _reason(found: Measured, recall: float, reached: float, most: int) -> str:
    ten = found.recall_at_10
    shown = f"recall@10 {ten.mean:.3f} (95 %: {ten.low:.3f} to {ten.high:.3f}), {recall:g} asked"
    if ten.mean >= recall:
        return shown
    best = "its best point" if found.point.effort >= most else f"effort {found.point.effort}"
    return f"{shown}; measured at {best}, where the queries that tuned it reach {reached:.3f}"
