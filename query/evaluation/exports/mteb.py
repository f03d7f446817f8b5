"""Results in the shape of mteb's results: `results/MODEL/REVISION/TASK.json`.

The revision is the key of the condition. The model's name tells conditions apart, too, since mteb's tables show only
that. mteb's `ResultCache` reads the folder with `load_results(require_model_meta=False, include_remote=False)`.
"""

import re
from pathlib import PurePosixPath
from typing import Any

from query.evaluation.exports.names import pretrained_of
from query.evaluation.exports.rankings import judgements, ranking, trec_measures
from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.data import DataTables
from query.evaluation.record import ConditionRecord, DataRecord
from query.evaluation.results import OnData

_TASKS = {"image_retrieval": "T2IRetrieval", "text_retrieval": "I2TRetrieval"}
_CLASSES = "ZeroShot"
_KS = (1, 3, 5, 10, 20, 100)


def folder_of(condition: ConditionRecord, is_baseline: bool) -> PurePosixPath:
    """Folder of the files of a condition, spelled as mteb does."""
    model = f"{condition.model} {pretrained_of(condition, is_baseline)}".strip()
    return PurePosixPath("results", re.sub(r"[^\w.+-]+", "_", model.strip("/").replace("/", "__")), condition.key)


def as_mteb(
    data: DataRecord, tables: DataTables, by_task: dict[str, Answers], on: OnData, split: str
) -> dict[str, dict[str, Any]]:
    """The results of a condition on a data set: what each file holds, by its task's name.

    The measures are those of trec_eval on the ranked lists, as in mteb: `recall_at_K` is the share of the right items
    that are found, `hit_rate_at_K` what CLIP's papers call recall@K. No version of mteb has computed them, so
    `mteb_version` is null.
    """
    name = data.name[:1].upper() + data.name[1:]
    files = {}
    for task, answers in by_task.items():
        if task == "text_retrieval" and data.kind == "classes":
            accuracy = on.metrics["acc1"].value
            files[f"{name}{_CLASSES}"] = {"accuracy": accuracy, "main_score": accuracy}
        else:
            judged = judgements(tables, task)
            measures = trec_measures(ranking(answers, judged), judged, _KS)
            files[f"{name}{_TASKS[task]}"] = measures | {"main_score": measures["ndcg_at_10"]}
    return {task: _result(task, data, scores, split) for task, scores in files.items()}


def _result(task: str, data: DataRecord, scores: dict[str, float], split: str) -> dict[str, Any]:
    subset = {name: round(value, 6) for name, value in scores.items()} | {
        "hf_subset": "default",
        "languages": ["eng-Latn"],
    }
    return {
        "dataset_revision": data.sha256,
        "task_name": task,
        "mteb_version": None,
        "scores": {split: [subset]},
        "evaluation_time": None,
        "kg_co2_emissions": None,
    }
