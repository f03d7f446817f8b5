"""The raw ranks of every condition in one small file for each data set, for whoever doubts a number."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.durable.atomic import write_atomically
from query.evaluation.metrics.per_query import strict_ranks
from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.data import DataTables
from query.evaluation.record import DataRecord


def write_ranks_table(
    path: Path, data: DataRecord, tables: DataTables, by_condition: Mapping[str, dict[str, Answers]]
) -> Path:
    """Write the strict rank of each query's first right answer, one column for each condition.

    Columns: `task`; `query`, the number of the query in the data set; `image`, the number of the image that the query
    belongs to; then one int32 column for each condition, by its name: 1 is first, null is not found. recall@k is the
    share of a task's rows with a rank of at most k. The metadata has the SHA-256 of the split.

    Args:
        path: The file.
        data: The data set.
        tables: Its queries.
        by_condition: The answers by name of the condition and task. An index answers only texts.

    Raises:
        StoreError: If the file cannot be written.
    """
    # of a gallery with distractors, only the data set's own images ask for texts
    owners = {"image_retrieval": tables.clusters_Q, "text_retrieval": np.arange(tables.num_own)}
    tasks = dict.fromkeys(task for by_task in by_condition.values() for task in by_task)
    parts = []
    for task in tasks:
        queries = np.arange(len(owners[task]), dtype=np.int32)
        columns = {
            "task": pa.array([task] * len(queries)),
            "query": pa.array(queries),
            "image": pa.array(owners[task], pa.int32()),
        }
        for name, by_task in by_condition.items():
            columns[name] = _ranks(by_task.get(task), len(queries))
        parts.append(pa.table(columns))
    table = pa.concat_tables(parts).replace_schema_metadata({"data": data.name, "split_sha256": data.sha256})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
    return path


def _ranks(answers: Answers | None, num_queries: int) -> pa.Array:
    if answers is None:
        return pa.nulls(num_queries, pa.int32())
    ranks_Q = strict_ranks(answers)
    is_known_Q = np.isfinite(ranks_Q)
    return pa.array(np.where(is_known_Q, ranks_Q, 0).astype(np.int32) + 1, mask=~is_known_Q)
