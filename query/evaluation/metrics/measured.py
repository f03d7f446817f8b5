"""A data set with what its conditions were measured at. Only one condition's answers are in memory at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from query.evaluation.metrics.estimates import Task
from query.evaluation.metrics.fidelity import fidelity
from query.evaluation.metrics.per_query import PerQuery, accuracies_of, metrics_of
from query.evaluation.metrics.right import Right, right_images, right_texts
from query.evaluation.ranking.answers import Answers
from query.evaluation.ranking.both_ways import IMAGE_TO_TEXT, TEXT_TO_IMAGE
from query.evaluation.raw.data import DataTables
from query.evaluation.results import AgainstFloat, Estimate, OnData


def tasks_of(tables: DataTables) -> dict[str, Task]:
    """The tasks of a data set, by name. Both resample the same images."""
    num_texts, num_images = len(tables.titles), len(tables.keys)
    return {
        TEXT_TO_IMAGE: Task(right_images(tables.pairs_P2, tables.grades_P, tables.clusters_Q, num_images)),
        IMAGE_TO_TEXT: Task(right_texts(tables.pairs_P2, tables.grades_P, num_texts)),
    }


def per_query(tables: DataTables, task: str, right: Right, answers: Answers, ks: Sequence[int]) -> dict[str, PerQuery]:
    """Every metric of a task, query by query.

    Args:
        tables: The data set. Classes have accuracies in the place of text retrieval.
        task: `image_retrieval` or `text_retrieval`.
        right: Its right answers.
        answers: The answers to all its queries.
        ks: The k of recall@k.
    """
    answers = right.rows_of(answers)
    if tables.kind == "classes" and task == IMAGE_TO_TEXT:
        return accuracies_of(answers, right.num_items)
    return metrics_of(task, answers, right, ks)


def task_of(metric: str) -> str:
    """The task that a metric is of."""
    return TEXT_TO_IMAGE if metric.startswith(TEXT_TO_IMAGE) else IMAGE_TO_TEXT


@dataclass
class Measured:
    """The conditions of one data set, added one by one, the baseline first."""

    tables: DataTables
    ks: Sequence[int]
    kept_metrics: frozenset[str]
    """Metrics whose values per query are kept, for fronts and decompositions."""
    kept_conditions: frozenset[str] = frozenset()
    """Keys of those that `compare` needs."""
    on: dict[str, OnData] = field(default_factory=dict)
    """By key of the condition."""
    values: dict[str, dict[str, PerQuery]] = field(default_factory=dict)
    """Of the kept metrics, by metric and key of the condition. A data set need not have them all."""

    def __post_init__(self) -> None:
        self.tasks = tasks_of(self.tables)
        self._baseline: dict[str, dict[str, PerQuery]] = {}
        self._baseline_ids: np.ndarray | None = None
        self._kept: dict[str, tuple[dict[str, dict[str, PerQuery]], np.ndarray]] = {}

    def add(self, key: str, by_task: Mapping[str, Answers], cosines_N: np.ndarray | None) -> None:
        """Add a condition.

        Args:
            key: Of the condition.
            by_task: Its answers. An index condition has those of image retrieval only.
            cosines_N: Cosine of each image to the baseline; None where that means nothing.
        """
        metrics = {
            task: per_query(self.tables, task, self.tasks[task].right, answers, self.ks)
            for task, answers in by_task.items()
        }
        ids_QK = by_task[TEXT_TO_IMAGE].ids_QK
        is_baseline = self._baseline_ids is None
        if is_baseline:
            self._baseline, self._baseline_ids = metrics, ids_QK
        if key in self.kept_conditions:
            self._kept[key] = metrics, ids_QK
        estimates, differences = {}, {}
        for task, found in metrics.items():
            estimates |= self.tasks[task].estimates(found)
            if not is_baseline:
                differences |= self.tasks[task].differences(found, self._baseline[task])
            for name in self.kept_metrics & found.keys():
                self.values.setdefault(name, {})[key] = found[name]
        agreement = {} if is_baseline else fidelity(ids_QK, self._baseline_ids, cosines_N)
        self.on[key] = OnData(data=self.tables.name, metrics=estimates, differences=differences, fidelity=agreement)

    def compare(self, key: str, other: str, cosines_N: np.ndarray | None) -> None:
        """Add how a condition in 8 bits compares with the same one in a float type. Both were added before.

        Args:
            key: Of the one in 8 bits.
            other: Key of the one in a float type.
            cosines_N: Cosine of each image vector of the first to that of the second, if it is known.
        """
        (mine, ids_QK), (others, other_ids_QK) = self._kept[key], self._kept[other]
        differences = {}
        for task, found in mine.items():
            differences |= self.tasks[task].differences(found, others[task])
            names = [f"{task}_recall@{k}" for k in self.ks]
            if names[0] in found:
                means = [
                    PerQuery(np.mean([of[task][name].values_Q for name in names], axis=0)) for of in (mine, others)
                ]
                mean = self.tasks[task].differences({"": means[0]}, {"": means[1]})[""]
                differences[f"{task}_recall@{'+'.join(map(str, self.ks))}"] = _times(mean, len(names))
        against = AgainstFloat(key=other, differences=differences, fidelity=fidelity(ids_QK, other_ids_QK, cosines_N))
        self.on[key] = replace(self.on[key], against_float=against)

    def recall(self, by_task: Mapping[str, Answers]) -> dict[str, float]:
        """The strict recall of some answers, by the metrics' names, without intervals."""
        found = {}
        for task, answers in by_task.items():
            found |= per_query(self.tables, task, self.tasks[task].right, answers, self.ks)
        names = [f"{task}_recall@{k}" for task in by_task for k in self.ks]
        return {name: float(found[name].values_Q.mean()) for name in names}


def _times(estimate: Estimate, factor: int) -> Estimate:
    value, low, high = (factor * number for number in (estimate.value, estimate.low, estimate.high))
    detectable = None if estimate.detectable is None else factor * estimate.detectable
    return replace(estimate, value=value, low=low, high=high, detectable=detectable)
