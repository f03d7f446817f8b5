"""Where the recall of text queries goes: from the unpruned model, step by step, to an index.

Every step is a paired difference on the same draws, so that the steps add up to the whole, in the values and in each
draw. The operating points of an index do not follow each other: each is a step from exact search over its vectors.
"""

from collections.abc import Iterator, Mapping, Sequence

from query.evaluation.grid.keys import DecomposeKeys
from query.evaluation.metrics.estimates import Task
from query.evaluation.metrics.measured import TEXT_TO_IMAGE, Measured
from query.evaluation.metrics.per_query import PerQuery
from query.evaluation.record import ConditionRecord, DataRecord, SweepRecord
from query.evaluation.results import Decomposition, Estimate, Step
from query.evaluation.statistics.bootstrap import recovery

WITH_DISTRACTORS = "+distractors"
"""End of the name of a data set whose gallery has its distractors, too."""


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
    """One decomposition for each condition that is to be decomposed."""
    task, values, found = measured.tasks[TEXT_TO_IMAGE], measured.values[metric], []
    for chain in chains(record, keys):
        path = list(zip(chain, [None, *chain], strict=False))
        leaves = [one for one in record.conditions if one.parent == chain[-1].key and one.key in values]
        found.append(
            Decomposition(
                data=data.name,
                metric=metric,
                steps=list(_steps([*path, *((leaf, chain[-1]) for leaf in leaves)], task, values)),
                recovery=_recovery(chain, task, values),
                notes=_notes(keys, data, has_adapter=len(chain) > 2, has_index=bool(leaves)),
            )
        )
    return found


def _adapted(record: SweepRecord, pruned: ConditionRecord, adapter: str | None) -> list[ConditionRecord]:
    def settings(one: ConditionRecord) -> tuple:
        return one.model, one.pretrained, one.image_size, one.precision, {**(one.policy or {}), "name": None}

    twins = [one for one in record.conditions if one.adapter == adapter and settings(one) == settings(pruned)]
    return [one for one in twins if one.role != "index"][:1] if adapter else []


def _steps(
    path: Sequence[tuple[ConditionRecord, ConditionRecord | None]], task: Task, values: Mapping[str, PerQuery]
) -> Iterator[Step]:
    metrics = {one.key: values[one.key] for one, _ in path}
    totals = task.estimates(metrics)
    first = path[0][0]

    def since(one: ConditionRecord, other: ConditionRecord) -> Estimate:
        return task.differences({"": metrics[one.key]}, {"": metrics[other.key]})[""]

    for one, before in path:
        yield Step(
            name=one.name,
            key=one.key,
            total=totals[one.key],
            after=before.key if before else None,
            change=since(one, before) if before else None,
            from_first=since(one, first) if before else None,
        )


def _recovery(chain: Sequence[ConditionRecord], task: Task, values: Mapping[str, PerQuery]) -> Estimate | None:
    if len(chain) < 3:
        return None
    whole, damaged, repaired = (values[one.key].values_Q for one in chain)
    return recovery(repaired, damaged, whole, task.draws)


def _notes(keys: DecomposeKeys, data: DataRecord, has_adapter: bool, has_index: bool) -> list[str]:
    notes = []
    distractors = data.counts.get("num_distractors", 0)
    if distractors:
        own = data.counts["num_own"]
        notes.append(f"The gallery holds {own:,} images of the data set and {distractors:,} distractors.")
    if distractors and has_adapter:
        notes.append(
            {
                True: "The adapter was trained on the distractors, so it knows most of the gallery.",
                False: "The adapter was not trained on the distractors.",
                None: "Whether the adapter was trained on the distractors is not known: the grid does not say so.",
            }[keys.adapter_saw_distractors]
        )
    if has_index:
        notes.append("Each operating point of the index is compared with exact search over the same vectors.")
    return notes
