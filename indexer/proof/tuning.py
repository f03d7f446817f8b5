"""Find the operating point that reaches a recall in the least time, on queries that prove nothing.

Shapes: Q queries, E embedding width, K results.
"""

from collections.abc import Callable, Sequence

import numpy as np

from indexer.proof.curve import Search, latency_ms, recall_per_query
from indexer.recipes.point import OperatingPoint

TIMED_QUERIES = 50
_NO_GAIN = 0.001
"""If twice the effort gains less recall, what is missing is lost by the codes, and more candidates must find it."""


def tune(
    search_at: Callable[[OperatingPoint], Search],
    queries_QE: np.ndarray,
    true_QK: np.ndarray,
    recall: float,
    max_effort: int,
    candidates: Sequence[int],
    margin: float = 1.0,
    is_graph: bool = False,
) -> tuple[OperatingPoint, float]:
    """The fastest point whose recall@10 is enough, or the point of the best recall if none is.

    Args:
        search_at: The search of an operating point.
        queries_QE: Queries to tune with.
        true_QK: Their true rows, K = 10, or all rows if there are fewer.
        recall: The recall@10 to reach.
        max_effort: The greatest effort that makes a difference; 0 if there is none to choose.
        candidates: The numbers of candidates to try, ascending.
        margin: Standard errors by which these queries must exceed the recall, because others have to prove it.
        is_graph: Whether the effort is efSearch, which is at least the number of candidates.

    Returns:
        The point, and its recall on these queries.
    """
    reached: list[tuple[float, OperatingPoint, float]] = []
    best = (0.0, OperatingPoint(effort=max_effort, candidates=candidates[-1]))
    for count in candidates:

        def recalls(effort: int, count: int = count) -> tuple[float, bool]:
            found = search_at(OperatingPoint(effort=effort, candidates=count))(queries_QE, 10)[1]
            each = recall_per_query(found, true_QK, 10)
            return float(each.mean()), each.mean() - margin * each.std() / np.sqrt(len(each)) >= recall - 1e-9

        effort, value = _least_effort(recalls, max_effort, count if is_graph else 1)
        point = OperatingPoint(effort=effort, candidates=count)
        if value[1]:
            milliseconds = float(np.median(latency_ms(search_at(point), queries_QE[:TIMED_QUERIES])))
            reached.append((milliseconds, point, value[0]))
            if len(reached) > 1 and milliseconds > reached[-2][0]:
                break  # even more candidates take even longer
        best = max(best, (value[0], point), key=lambda pair: pair[0])
    if reached:
        _, point, value_reached = min(reached, key=lambda found: found[0])
        return point, value_reached
    return best[1], best[0]


def _least_effort(
    recalls: Callable[[int], tuple[float, bool]], most: int, first: int
) -> tuple[int, tuple[float, bool]]:
    """The least effort from `first` that is enough, by doubling and then halving the distance; the most if none is."""
    low, high = first - 1, first
    found = recalls(min(high, most) if most else 0)
    while not found[1] and high < most:
        low, high, before = high, min(2 * high, most), found[0]
        found = recalls(high)
        if not found[1] and found[0] > 0.5 and found[0] - before < _NO_GAIN:
            break
    if not most or not found[1]:
        return (min(high, most), found)
    enough = found
    while high - low > max(1, high // 32):
        middle = (low + high) // 2
        found = recalls(middle)
        if found[1]:
            high, enough = middle, found
        else:
            low = middle
    return high, enough
