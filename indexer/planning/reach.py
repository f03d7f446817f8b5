"""The least time in which an index reaches a recall, from the curves of a pilot, scaled to the number of rows.

Shapes: N rows, E embedding width, L lists.
"""

import math
from dataclasses import dataclass

from indexer.planning.costs import query_ms
from indexer.planning.curves import Pilot, cost_of, recall_of
from indexer.planning.sizes import Shape
from indexer.planning.speeds import Calibration

# How costs change with the number of lists L and of rows N. Measured with text queries on 7,000 to 113,802 real
# vectors: for 0.9 to 0.99, four times the lists halve the share; four times the rows divide it by 1.05 to 1.4.
_SHARE_BY_LISTS = -0.5
_SHARE_BY_ROWS = -0.1
_CANDIDATES_BY_ROWS = 0.25
_EFFORT_BY_ROWS = 0.3

_CANDIDATES = (10, 12, 15, 20, 30, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The fastest point of an index for a recall; its best point if it does not reach it."""

    recall: float
    query_ms: float
    effort: int = 0
    """nprobe or efSearch; 0 for an exact index."""
    candidates: int = 0
    """Rows that are scored again from the vector file; 0 for an exact index."""


def reach(shape: Shape, num_rows: int, dim: int, recall: float, speed: Calibration, pilot: Pilot) -> Reached:
    """Find the fastest point of an index.

    Args:
        shape: The index.
        num_rows: Its rows.
        dim: Their width.
        recall: The recall@10 to reach.
        speed: Of this machine, for this width.
        pilot: What recall costs.
    """

    def point(found: float, effort: int, candidates: int) -> Reached:
        milliseconds = query_ms(shape, num_rows, dim, speed, effort, candidates)
        return Reached(recall=found, query_ms=milliseconds, effort=effort, candidates=candidates)

    if shape.is_exact:
        return Reached(recall=1.0, query_ms=query_ms(shape, num_rows, dim, speed))
    if shape.is_graph:
        growth = (num_rows / pilot.graph_rows) ** _EFFORT_BY_ROWS
        found = min(recall, pilot.graph[-1][1])
        return point(found, math.ceil(max(10.0, cost_of(pilot.graph, found) * growth)), 10)
    points = []
    for candidates in _CANDIDATES:
        of_code = recall_of(pilot.codes[shape.code], candidates / (num_rows / pilot.num_rows) ** _CANDIDATES_BY_ROWS)
        found = min(recall, of_code)
        if found > 0:
            share = _share(pilot, shape.num_lists, num_rows, found / of_code)
            points.append(point(found, max(1, math.ceil(share * shape.num_lists)), candidates))
    enough = [found for found in points if found.recall >= recall]
    return min(enough, key=lambda found: found.query_ms) if enough else max(points, key=lambda found: found.recall)


def _share(pilot: Pilot, num_lists: int, num_rows: int, recall: float) -> float:
    """Of the rows to scan."""
    if recall > pilot.lists[-1][1]:
        return 1.0
    finer = (num_lists / pilot.num_lists) ** _SHARE_BY_LISTS * (num_rows / pilot.num_rows) ** _SHARE_BY_ROWS
    return min(1.0, cost_of(pilot.lists, recall) * finer)
