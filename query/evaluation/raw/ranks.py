"""The answers of a condition to every query of a data set, task by task.

One row for each query. Where `ids` holds -1, the gallery had fewer items, and the score is -inf.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.head import RawHead, read_raw, write_raw

_PER_QUERY = {
    "best_Q": pa.float32(),
    "above_Q": pa.int32(),
    "tied_Q": pa.int32(),
    "tied_right_Q": pa.int32(),
    "above_epsilon_Q": pa.int32(),
    "unlike_Q": pa.int32(),
}
_PER_HIT = {"ids_QK": pa.int32(), "scores_QK": pa.float32()}


def write_ranks(path: Path, by_task: dict[str, Answers], head: RawHead) -> None:
    """Write the answers, by task: `image_retrieval` and `text_retrieval`. All have as many hits per query.

    Raises:
        StoreError: If the file cannot be written.
    """
    table = pa.concat_tables(_rows(task, answers) for task, answers in by_task.items())
    write_raw(path, table, head, ["best", "scores.list.element"])


def read_ranks(path: Path, expected: RawHead | None = None) -> dict[str, Answers]:
    """Read the answers, by task.

    Raises:
        StoreError: If the file is missing, damaged, or was measured on something else.
    """
    table, _ = read_raw(path, expected)
    tasks = table["task"].to_numpy()
    return {task: _answers(table.filter(pa.array(tasks == task))) for task in dict.fromkeys(tasks)}


def _column(field: str) -> str:
    return field.rpartition("_")[0]


def _rows(task: str, answers: Answers) -> pa.Table:
    num_queries, num_hits = answers.ids_QK.shape
    columns = {"task": pa.array([task] * num_queries), "query": pa.array(np.arange(num_queries, dtype=np.int32))}
    for name, kind in _PER_QUERY.items():
        columns[_column(name)] = pa.array(getattr(answers, name), kind)
    for name, kind in _PER_HIT.items():
        values = pa.array(getattr(answers, name).ravel(), kind)
        columns[_column(name)] = pa.FixedSizeListArray.from_arrays(values, num_hits)
    return pa.table(columns)


def _answers(table: pa.Table) -> Answers:
    values = {name: table[_column(name)].to_numpy() for name in _PER_QUERY}
    for name in _PER_HIT:
        hits = table[_column(name)].combine_chunks()
        values[name] = hits.flatten().to_numpy().reshape(len(hits), hits.type.list_size)
    return Answers(**values)
