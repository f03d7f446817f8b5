"""Time one query at a time, on one thread, in rounds in which every index takes its turn."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from indexer.recipes.point import OperatingPoint
from indexer.searcher import IndexSearcher, search_on_this_thread_alone
from pipeline.monitor.progress import Tick
from query.evaluation.raw.timings import Round, path_of, read_rounds, write_round
from query.evaluation.running.kept.work import Work

KIND = "timed rounds of queries"
NUM_HITS = 10
NUM_QUERIES = 100
"""Queries of a round."""


@dataclass(frozen=True, slots=True)
class TimedPoint:
    """An index at an operating point, and queries."""

    searcher: IndexSearcher
    point: OperatingPoint
    queries_QE: np.ndarray

    def seconds(self) -> float:
        """Ask every query on its own."""
        started = time.perf_counter()
        for place in range(len(self.queries_QE)):
            self.searcher.find(self.queries_QE[place : place + 1], NUM_HITS, point=self.point)
        return time.perf_counter() - started


def time_queries(work: Work, points: Mapping[str, TimedPoint], rounds: int, is_new: bool) -> None:
    """Time every point in so many rounds; every other round runs in reverse order.

    Rounds of an earlier run count if the same points took part in them.

    Args:
        work: The run.
        points: By key of the condition.
        rounds: How many.
        is_new: Whether an index was built since: then its earlier rounds do not count.
    """
    done = set()
    for timed in read_rounds(work.folder.timings):
        if timed.kind == "query" and not is_new and _is_same(timed, points, work.environment_key):
            done.add(timed.number)
        elif timed.kind == "query":
            path_of(work.folder.timings, timed).unlink()
    work.tally.kept[KIND] += len(done)
    missing = [number for number in range(rounds) if number not in done]
    if not missing or not points:
        return
    with ThreadPoolExecutor(1, initializer=search_on_this_thread_alone) as pool:
        for point in points.values():
            pool.submit(point.seconds).result()  # a warm-up, which does not count
        for place, number in enumerate(missing):
            keys = list(points) if number % 2 == 0 else list(reversed(points))
            seconds = [pool.submit(points[key].seconds).result() for key in keys]
            write_round(work.folder.timings, _round(work, number, keys, seconds, points))
            work.tally.measured[KIND] += 1
            work.on_tick("queries", Tick(place + 1, len(missing), 0, 0.0, is_of_images=False))


def _is_same(timed: Round, points: Mapping[str, TimedPoint], environment_key: str) -> bool:
    return set(timed.keys) == set(points) and timed.environment_key == environment_key


def _round(
    work: Work, number: int, keys: Sequence[str], seconds: Sequence[float], points: Mapping[str, TimedPoint]
) -> Round:
    return Round(
        number=number,
        block=0,
        kind="query",
        keys=list(keys),
        seconds=list(seconds),
        num_items=[len(points[key].queries_QE) for key in keys],
        environment_key=work.environment_key,
    )
