"""Where the recall of text queries goes: from the unpruned model, step by step, to an operating point of an index.

Every step is a paired difference on the same draws, so that the steps add up to the whole, in the values and in each
draw.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from query.evaluation.grid.keys import DecomposeKeys
from query.evaluation.metrics.estimates import Task
from query.evaluation.metrics.measured import Measured
from query.evaluation.metrics.per_query import PerQuery
from query.evaluation.ranking.both_ways import TEXT_TO_IMAGE
from query.evaluation.record import ConditionRecord, DataRecord, SweepRecord
from query.evaluation.results import Decomposition, Estimate, Step
from query.evaluation.statistics.bootstrap import recovery

_SAW_DISTRACTORS = {
    True: "The adapter was trained on the distractors.",
    False: "The adapter was not trained on the distractors.",
    None: "The grid does not say whether the adapter was trained on the distractors (`adapter_saw_distractors`).",
}


def decomposed_metric(metric: str, ks: Sequence[int]) -> str:
    """The metric to decompose: that of the sweep if text queries have it, otherwise their recall at the first k."""
    return metric if metric.startswith(TEXT_TO_IMAGE) else f"{TEXT_TO_IMAGE}_recall@{ks[0]}"


def chains(record: SweepRecord, keys: DecomposeKeys) -> list[list[ConditionRecord]]:
    """For each condition to decompose: the baseline, the condition, and the same with the adapter if there is one."""
    found = []
    for name in keys.conditions:
        pruned = next((one for one in record.conditions if one.name == name), None)
        if pruned:
            found.append([record.baseline, pruned, *_adapted(record, pruned, keys.adapter)])
    return found


def decompositions(
    record: SweepRecord, keys: DecomposeKeys, data: DataRecord, measured: Measured, metric: str
) -> list[Decomposition]:
    """One for each condition to decompose and each operating point of its indexes; without indexes, to the vectors."""
    task, values, found = measured.tasks[TEXT_TO_IMAGE], measured.values[metric], []
    for chain in chains(record, keys):
        points = [one for one in record.conditions if one.parent == chain[-1].key and one.key in values]
        for path in [[*chain, point] for point in points] or [chain]:
            steps = list(_steps(path, task, {one.key: values[one.key] for one in path}))
            found.append(
                Decomposition(
                    data=data.name,
                    metric=metric,
                    steps=steps,
                    recovery=_recovery([values[one.key].values_Q for one in chain], task),
                    notes=_notes(keys, data, has_adapter=len(chain) > 2),
                )
            )
    return found


def _adapted(record: SweepRecord, pruned: ConditionRecord, adapter: str | None) -> list[ConditionRecord]:
    def settings(one: ConditionRecord) -> tuple:
        return one.model, one.pretrained, one.image_size, one.precision, {**(one.policy or {}), "name": None}

    twins = [one for one in record.conditions if one.adapter == adapter and settings(one) == settings(pruned)]
    return [one for one in twins if one.role != "index"][:1] if adapter else []


def _steps(path: Sequence[ConditionRecord], task: Task, values: Mapping[str, PerQuery]) -> Iterator[Step]:
    totals, first = task.estimates(values), path[0]
    yield Step(name=first.name, key=first.key, total=totals[first.key], change=None, from_first=None)
    for before, one in pairwise(path):
        change, from_first = (
            task.differences({one.key: values[one.key]}, {one.key: values[other.key]})[one.key]
            for other in (before, first)
        )
        yield Step(name=one.name, key=one.key, total=totals[one.key], change=change, from_first=from_first)


def _recovery(chain: Sequence[np.ndarray], task: Task) -> Estimate | None:
    if len(chain) < 3:
        return None
    whole_Q, damaged_Q, repaired_Q = chain
    return recovery(repaired_Q, damaged_Q, whole_Q, task.draws)


def _notes(keys: DecomposeKeys, data: DataRecord, has_adapter: bool) -> list[str]:
    num_own, num_distractors = (data.counts.get(name, 0) for name in ("num_own", "num_distractors"))
    if not num_distractors:
        return []
    notes = [f"The gallery holds {num_own:,} images of the data set and {num_distractors:,} distractors."]
    if has_adapter:
        notes.append(_SAW_DISTRACTORS[keys.adapter_saw_distractors])
    return notes
