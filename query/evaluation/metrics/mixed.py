"""Whether one index over images of two conditions ranks fairly.

Each image has been in the half of either condition, once each. So images of both would get half of the top k each if
conditions made no difference, whatever is special about the images of a half.

Shapes: Q queries, N images, K best hits.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from query.evaluation.metrics.estimates import Task
from query.evaluation.metrics.measured import Measured
from query.evaluation.metrics.per_query import PerQuery, metrics_of
from query.evaluation.ranking.both_ways import TEXT_TO_IMAGE
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.mixed import MixedAnswers, head_of_mixed, read_mixed
from query.evaluation.record import DataRecord, SweepRecord
from query.evaluation.results import Estimate, MixedResults

DEPTH = 10
_FAIR = 0.5
_NEARLY = 0.05
"""A share that is off by less than this is nearly fair."""


def mixed_of(
    folder: SweepFolder, record: SweepRecord, pairs: Sequence[tuple[str, str]], data: DataRecord, measured: Measured
) -> Iterator[MixedResults]:
    """Each pair of conditions that share a gallery, by their names in the grid.

    Raises:
        StoreError: If a raw file is missing, damaged, or was measured on something else.
    """
    by_name = {one.name: one for one in record.conditions}
    task = measured.tasks[TEXT_TO_IMAGE]
    for names in pairs:
        first, second = (by_name[name] for name in names)
        found = read_mixed(folder, head_of_mixed(record, first, second, data))
        depth = min(DEPTH, task.right.num_items)
        share = _share(shares_of_first(found, task, depth), task)
        yield MixedResults(
            data=data.name,
            first=first.key,
            second=second.key,
            share=share,
            expected=_FAIR,
            k=depth,
            recall=_recall(found, task, measured.ks),
            advice=advice(share, names, depth),
        )


def shares_of_first(found: MixedAnswers, task: Task, k: int) -> np.ndarray:
    """Share of the first k hits of each query that are of the first condition, over both galleries: float64 [Q]."""
    drawn_Qk, swapped_Qk = (task.right.rows_of(one).ids_QK[:, :k] for one in (found.drawn, found.swapped))
    return (found.is_first_N[drawn_Qk].mean(axis=1) + (~found.is_first_N)[swapped_Qk].mean(axis=1)) / 2


def _share(shares_Q: np.ndarray, task: Task) -> Estimate:
    """The mean share, from its difference to that of the other condition: of that, exact intervals know 0."""
    apart = task.differences({"share": PerQuery(shares_Q)}, {"share": PerQuery(1 - shares_Q)})["share"]
    value, low, high = (_FAIR + part / 2 for part in (apart.value, apart.low, apart.high))
    return Estimate(value, low, high, apart.method)


def advice(share: Estimate, names: tuple[str, str], k: int) -> str:
    """What to do, in one sentence."""
    favoured = names[0] if share.value >= _FAIR else names[1]
    percent = 100 * max(share.value, 1 - share.value)
    gets = f"images of {favoured!r} get {percent:.1f} % of the first {k} hits, where 50 % would be fair"
    if share.low <= _FAIR <= share.high:
        return f"Both can share one index: {gets}, which may be chance."
    if max(abs(end - _FAIR) for end in (share.low, share.high)) < _NEARLY:
        return f"Both can share one index, though it is not quite fair: {gets}."
    return f"Do not mix them in one index, but embed all images in one way: {gets}."


def _recall(found: MixedAnswers, task: Task, ks: Sequence[int]) -> dict[str, Estimate]:
    """Recall of the mixed gallery, over both ways to mix."""
    drawn, swapped = (
        metrics_of(TEXT_TO_IMAGE, task.right.rows_of(one), task.right, ks) for one in (found.drawn, found.swapped)
    )
    names = [f"{TEXT_TO_IMAGE}_recall@{k}" for k in ks]
    return task.estimates({name: PerQuery((drawn[name].values_Q + swapped[name].values_Q) / 2) for name in names})
