"""Choose an index: predict what each candidate takes, and take the fastest that keeps to the limits.

Shapes: N rows, E embedding width, L lists.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from indexer.planning.costs import build_s, opening_s
from indexer.planning.curves import TYPICAL, Pilot
from indexer.planning.reach import Reached, reach
from indexer.planning.sizes import CODES, ID_BYTES, Shape, build_memory, index_bytes, opening_memory, search_memory
from indexer.planning.speeds import Calibration
from pipeline.errors import ConfigError

EXACT_MS = 5.0
"""Comparing every vector is chosen if a query then takes no longer: it needs neither tuning nor proof."""

NEAR = 1.15
"""Of candidates that are slower than the fastest by at most this factor, the one that takes the least memory wins."""

_LISTS_PER_SQRT = (2, 3, 4, 6, 8)
_MIN_ROWS_PER_LIST = 32
_TRAINED_PER_LIST = (64, 48, 32)
_MIN_TRAINED = 20_000
_MIN_GRAPH_ROWS = 1_000
_RECALLS = (0.999, 0.995, 0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the index is built and searched."""

    threads: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an index must keep to. None stands for half of the memory, three quarters of it, and no limit of time."""

    min_recall: float = 0.95
    max_query_ms: float | None = None
    max_index_memory: int | None = None
    max_build_memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A recipe, and what it is predicted to take."""

    recipe: str
    """For `faiss.index_factory`."""
    shape: Shape
    reached: Reached
    """The time of a query, and where it is searched."""
    num_train: int
    """Rows to train on."""
    disk_bytes: int
    """The index file, the vector file and the ids."""
    index_bytes: int
    """The index file alone."""
    index_memory: int
    """Bytes that searching takes, without the pages of the vector file."""
    build_memory: int
    """Bytes at the peak of the build."""
    build_s: float
    opening_s: float
    opening_memory: int
    """Bytes of anonymous memory after opening, before any search."""
    refused: str = ""
    """Which limit it breaks; empty if none."""

    @property
    def query_ms(self) -> float:
        """Of one query on one thread."""
        return self.reached.query_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPlan:
    """The candidates, the fastest first, and the one that wins."""

    candidates: tuple[Candidate, ...]
    winner: Candidate
    reason: str
    """One sentence."""


def plan(
    num_rows: int,
    dim: int,
    limits: Limits,
    machine: Machine,
    speed: Calibration,
    pilot: Pilot = TYPICAL,
    is_half: bool = True,
) -> IndexPlan:
    """Choose the index of `num_rows` vectors, `dim` wide.

    An exact index wins if it is fast enough. Otherwise the fastest wins; of those nearly as fast, the smallest.

    Args:
        num_rows: Rows to index.
        dim: Their width.
        limits: What the index must keep to.
        machine: Where it is built.
        speed: Of this machine, for this width.
        pilot: What recall costs.
        is_half: Whether the vectors are float16; comparing float32 vectors in float16 is not exact.

    Raises:
        ConfigError: If a limit of memory is below the least possible, or recall and time cannot both be reached.
    """
    limits = replace(
        limits,
        max_index_memory=limits.max_index_memory or machine.memory_bytes // 2,
        max_build_memory=limits.max_build_memory or machine.memory_bytes * 3 // 4,
    )
    considered = [
        _candidate(shape, num_rows, dim, limits, machine, speed, pilot)
        for shape in shapes(max(1, num_rows), dim, is_half)
    ]
    considered.sort(key=lambda candidate: candidate.query_ms)
    fitting = [candidate for candidate in considered if "memory" not in candidate.refused]
    if not fitting:
        raise _too_little_memory(considered, num_rows, dim, limits)
    accepted = [candidate for candidate in fitting if not candidate.refused]
    if not accepted and limits.max_query_ms is not None:
        raise _out_of_reach(fitting, num_rows, dim, limits, speed, pilot)
    winner, why = _winner(accepted or fitting, limits)
    return IndexPlan(candidates=tuple(considered), winner=winner, reason=f"{winner.recipe} {why}")


def shapes(num_rows: int, dim: int, is_half: bool) -> Iterator[Shape]:
    """The indexes that come into question."""
    if is_half:
        yield Shape("fp16")
    yield Shape("fp32")
    numbers = {int(factor * num_rows**0.5) for factor in _LISTS_PER_SQRT}
    for num_lists in sorted(number for number in numbers if number * _MIN_ROWS_PER_LIST <= num_rows):
        for name, code in CODES.items():
            if name != "fp32" and code.takes(dim):
                yield Shape(name, num_lists)
    if num_rows >= _MIN_GRAPH_ROWS:
        yield Shape("fp16", is_graph=True)


def _candidate(
    shape: Shape, num_rows: int, dim: int, limits: Limits, machine: Machine, speed: Calibration, pilot: Pilot
) -> Candidate:
    num_train, building = _training(shape, num_rows, dim, limits.max_build_memory)
    size, searching = index_bytes(shape, num_rows, dim), search_memory(shape, num_rows, dim)
    reached = reach(shape, num_rows, dim, limits.min_recall, speed, pilot)
    broken = [
        name
        for name, is_broken in (
            ("max_index_memory", searching > limits.max_index_memory),
            ("max_build_memory", building > limits.max_build_memory),
            ("min_recall", reached.recall < limits.min_recall),
            ("max_query_ms", limits.max_query_ms is not None and reached.query_ms > limits.max_query_ms),
        )
        if is_broken
    ]
    return Candidate(
        recipe=shape.factory(dim),
        shape=shape,
        reached=reached,
        num_train=num_train,
        disk_bytes=size + num_rows * (2 * dim + ID_BYTES),
        index_bytes=size,
        index_memory=searching,
        build_memory=building,
        build_s=build_s(shape, num_rows, dim, num_train, machine.threads, speed),
        opening_s=opening_s(shape, num_rows, dim),
        opening_memory=opening_memory(shape, num_rows, dim),
        refused=broken[0] if broken else "",
    )


def _training(shape: Shape, num_rows: int, dim: int, most: int) -> tuple[int, int]:
    """Rows to train on, as many as the memory of the build allows; and the build's memory with them."""
    for per_list in _TRAINED_PER_LIST:
        num_train = min(num_rows, max(_MIN_TRAINED, per_list * shape.num_lists))
        building = build_memory(shape, num_rows, dim, num_train)
        if building <= most:
            break
    return num_train, building


def _winner(candidates: Sequence[Candidate], limits: Limits) -> tuple[Candidate, str]:
    """The winner of those that keep to the limits, or of those that fit and miss the recall; and why it wins."""
    wanted = f"recall@10 of {limits.min_recall:g}"
    if candidates[0].refused:
        best = max(candidates, key=lambda candidate: candidate.reached.recall)
        return best, f"comes nearest to a {wanted}, which no recipe that fits the memory is predicted to reach"
    exact = [candidate for candidate in candidates if candidate.shape.is_exact]
    if exact and exact[0].query_ms <= EXACT_MS:
        best = _smallest_of_the_fastest(exact)
        return best, f"compares every vector in {best.query_ms:.2g} ms, so nothing needs to be approximated"
    best = _smallest_of_the_fastest(candidates)
    if len(candidates) == 1:
        return best, f"is the only candidate that keeps to the limits with a {wanted}"
    others = f"of {len(candidates)} candidates that keep to the limits with a {wanted}"
    if best is candidates[0]:
        return best, f"is the fastest {others}"
    return best, f"takes the least memory of those about as fast as the fastest, {others}"


def _smallest_of_the_fastest(candidates: Sequence[Candidate]) -> Candidate:
    near = [candidate for candidate in candidates if candidate.query_ms <= NEAR * candidates[0].query_ms]
    return min(near, key=lambda candidate: (candidate.index_memory, candidate.build_s))


def _too_little_memory(considered: Sequence[Candidate], num_rows: int, dim: int, limits: Limits) -> ConfigError:
    """What to say if no candidate fits: the least that the limit it breaks could be."""
    name, least = "max_index_memory", min(considered, key=lambda candidate: candidate.index_memory)
    if least.index_memory <= limits.max_index_memory:
        fitting = [candidate for candidate in considered if candidate.index_memory <= limits.max_index_memory]
        name, least = "max_build_memory", min(fitting, key=lambda candidate: candidate.build_memory)
    needed = getattr(least, name.removeprefix("max_"))
    return ConfigError(
        f"{name} = {in_units(getattr(limits, name))}: {num_rows:,} vectors of {dim} dimensions take at least "
        f"{in_units(needed, is_least=True)} ({least.recipe}); give --{name.replace('_', '-')} that much"
    )


def _out_of_reach(
    fitting: Sequence[Candidate], num_rows: int, dim: int, limits: Limits, speed: Calibration, pilot: Pilot
) -> ConfigError:
    """What to say if recall and time cannot both be reached: what each of them allows of the other."""
    enough = [candidate for candidate in fitting if candidate.reached.recall >= limits.min_recall]
    reached = [
        recall
        for recall in _RECALLS
        for candidate in fitting
        if (found := reach(candidate.shape, num_rows, dim, recall, speed, pilot)).recall >= recall
        and found.query_ms <= limits.max_query_ms
    ]
    slow = f"that recall takes {enough[0].query_ms:.2g} ms ({enough[0].recipe})" if enough else "no recipe reaches it"
    fast = f"that time buys a recall of {max(reached):g}" if reached else "no recipe is that fast"
    return ConfigError(
        f"max_query_ms = {limits.max_query_ms:g} and min_recall = {limits.min_recall:g}: both are out of reach for "
        f"{num_rows:,} vectors of {dim} dimensions in {in_units(limits.max_index_memory)}; {slow}, {fast}; raise "
        "--max-query-ms, lower --min-recall, or raise --max-index-memory"
    )


def in_units(num_bytes: int, is_least: bool = False) -> str:
    """A number of bytes for people, as `--max-index-memory` takes it; rounded up if less would not do."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if num_bytes >= size:
            tenths = 10 * num_bytes / size
            return f"{(math.ceil(tenths) if is_least else round(tenths)) / 10:g}{unit}"
    return str(num_bytes)
