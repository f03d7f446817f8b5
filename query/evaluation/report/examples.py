"""Queries as examples: where the unpruned and the pruned model differ most, and where they agree.

Shapes: Q queries.
"""

from dataclasses import dataclass

import numpy as np

from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.data import DataTables, read_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.ranks import read_ranks
from query.evaluation.report import words
from query.evaluation.report.answer import main_data
from query.evaluation.results import ConditionResults, Results

TASK = "image_retrieval"
NUM_HITS = 5
_NUM_LOST, _NUM_GAINED, _NUM_ALIKE = 2, 1, 2


@dataclass(frozen=True, slots=True)
class ShownHit:
    """One image among the first of a query."""

    uri: str
    key: str
    description: str
    """What it shows: a query that it answers, or else its key."""
    is_right: bool


@dataclass(frozen=True, slots=True)
class Side:
    """The answer of one condition."""

    name: str
    rank: int
    """Of the best right image, strict."""
    hits: list[ShownHit]


@dataclass(frozen=True, slots=True)
class Example:
    """A query and its answers, side by side."""

    title: str
    story: str
    sides: list[Side]


def examples_of(results: Results, folder: SweepFolder, found: ConditionResults) -> list[Example]:
    """Five queries of the first data set: two that lost most, one that gained most, two with equal answers.

    The choice depends on the ranks alone, and takes the first query where several are alike.

    Args:
        results: The results.
        folder: Has the raw files.
        found: The condition that is set against the unpruned model.

    Raises:
        StoreError: If a raw file is missing or damaged.
    """
    data = main_data(results)
    baseline = results.record.baseline
    tables = read_data(folder.data(data))
    before, after = (read_ranks(folder.ranks(key, data)).get(TASK) for key in (baseline.key, found.condition.key))
    if before is None or after is None:
        return []
    chosen = _choose(before, after, tables)
    description_of = _descriptions(tables)
    num_right_Q = np.bincount(tables.pairs_P2[:, 0], minlength=len(tables.titles))
    pairs = (("unpruned", before), (found.condition.name, after))
    return [
        Example(
            title=tables.titles[query],
            story=_story(
                kind, found.condition.name, num_right_Q[query], *(int(_ranks(answers)[query]) for _, answers in pairs)
            ),
            sides=[_side(name, query, answers, tables, description_of) for name, answers in pairs],
        )
        for kind, query in chosen
    ]


def _ranks(answers: Answers) -> np.ndarray:
    """Strict ranks (int64 [Q])."""
    return 1 + answers.above_Q.astype(np.int64) + answers.tied_Q


def _choose(before: Answers, after: Answers, tables: DataTables) -> list[tuple[str, int]]:
    """The kind and the number of each query, no two of one image."""
    has_answer_Q = ~(np.isnan(before.best_Q) | np.isnan(after.best_Q))
    was_Q, is_Q = _ranks(before), _ranks(after)
    fall_Q = np.where(has_answer_Q, np.log(is_Q) - np.log(was_Q), 0.0)
    k = min(NUM_HITS, before.ids_QK.shape[1], after.ids_QK.shape[1])
    shared_Q = np.array(
        [len(set(a) & set(b)) for a, b in zip(before.ids_QK[:, :k].tolist(), after.ids_QK[:, :k].tolist(), strict=True)]
    )
    # equal answers say most where the right image is among them
    alike_Q = np.where(has_answer_Q & (was_Q == is_Q) & (was_Q <= k), shared_Q, -1)
    wanted = (
        ("lost", -fall_Q, fall_Q > 0, _NUM_LOST),
        ("gained", fall_Q, fall_Q < 0, _NUM_GAINED),
        ("alike", -alike_Q, alike_Q >= 0, _NUM_ALIKE),
    )
    chosen, clusters = [], set()
    for kind, order_Q, may_Q, number in wanted:
        left = number
        for query in np.argsort(order_Q, kind="stable").tolist():
            if not left or not may_Q[query]:
                break
            if tables.clusters_Q[query] not in clusters:
                clusters.add(tables.clusters_Q[query])
                chosen.append((kind, query))
                left -= 1
    return chosen


def _story(kind: str, name: str, num_right: int, was: int, now: int) -> str:
    image = "first right image" if num_right > 1 else "right image"
    if kind == "alike":
        return f"Both have the {image} at rank {now:,}."
    return f"The {image} is at rank {was:,} unpruned, and at rank {now:,} with {words.code(name)}."


def _side(name: str, query: int, answers: Answers, tables: DataTables, description_of: dict[int, str]) -> Side:
    pairs = tables.pairs_P2
    right = set(pairs[pairs[:, 0] == query, 1].tolist())
    ids = [number for number in answers.ids_QK[query, :NUM_HITS].tolist() if number >= 0]
    hits = [ShownHit(tables.uris[n], tables.keys[n], description_of.get(n, tables.keys[n]), n in right) for n in ids]
    return Side(name, int(_ranks(answers)[query]), hits)


def _descriptions(tables: DataTables) -> dict[int, str]:
    """The first query that each image answers."""
    found: dict[int, str] = {}
    for query, image in tables.pairs_P2.tolist():
        found.setdefault(image, tables.titles[query])
    return found
