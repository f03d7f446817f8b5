"""Results as CLIP_benchmark writes them, one JSON file for each condition and data set.

`clip_benchmark build FOLDER --output benchmark.csv` makes one table of them, and of those that CLIP_benchmark wrote.
"""

import math
import re
from typing import Any

from query.evaluation.exports.names import pretrained_of
from query.evaluation.record import ConditionRecord, DataRecord
from query.evaluation.results import OnData

_METRIC = re.compile(r"(image|text)_retrieval_recall@\d+|acc[15]")
_TASKS = {"captions": "zeroshot_retrieval", "classes": "zeroshot_classification"}


def file_name(condition: ConditionRecord, data: DataRecord) -> str:
    """Name of the file of a condition on a data set."""
    return f"{data.name}_{condition.key}_en_{_TASKS[data.kind]}.json"


def as_clip_benchmark(condition: ConditionRecord, data: DataRecord, on: OnData, is_baseline: bool) -> dict[str, Any]:
    """One result as CLIP_benchmark's `eval` dumps it, and three more keys, which `build` makes columns of."""
    return {
        "dataset": data.name,
        "model": condition.model,
        "pretrained": pretrained_of(condition, is_baseline),
        "task": _TASKS[data.kind],
        "metrics": {
            name: found.value
            for name, found in on.metrics.items()
            if _METRIC.fullmatch(name) and math.isfinite(found.value)
        },
        "language": "en",
        "condition": condition.name,
        "fingerprint": condition.fingerprint,
        "split_sha256": data.sha256,
    }
