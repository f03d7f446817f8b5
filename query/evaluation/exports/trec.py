"""TREC runs and qrels, which trec_eval, pytrec_eval, ranx and ir_measures read.

One qrels file for each task of a data set, and one run for each condition. Words are separated by blanks, so blanks in
keys are percent-encoded. Captions are named t0, t1, ... in the order of `data/NAME/queries.parquet`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.durable.atomic import write_text
from query.evaluation.exports.rankings import Judgements, judgements, ranking
from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.data import DataTables

_SCALES = (1, 10, 100, 1000)


def write_qrels(folder: Path, data: DataTables, tasks: list[str]) -> list[Path]:
    """Write the right answers of a data set, `TASK.qrels` each. Returns the files.

    Grades are whole numbers there, so fractions are multiplied by 10, 100 or 1000, and then rounded. That changes no
    measure that uses ratios of grades, such as trec_eval's nDCG.

    Raises:
        StoreError: If a file cannot be written.
    """
    written = []
    for task in tasks:
        judged = judgements(data, task)
        grades_P = _whole(judged.right.grades_P)
        rows = zip(judged.right.pairs_P2.tolist(), grades_P.tolist(), strict=True)
        lines = [f"{judged.query_ids[query]} 0 {judged.item_ids[item]} {grade}" for (query, item), grade in rows]
        written.append(_write(folder / f"{task}.qrels", lines))
    return written


def write_runs(folder: Path, key: str, data: DataTables, by_task: dict[str, Answers]) -> list[Path]:
    """Write the hits of a condition, `KEY.TASK.run` for each task. Returns the files.

    Scores fall strictly, with wrong items first among equals: tools that sort by score get the strict ranks.

    Raises:
        StoreError: If a file cannot be written.
    """
    return [
        _write(folder / f"{key}.{task}.run", _run_lines(key, answers, judgements(data, task)))
        for task, answers in by_task.items()
    ]


def _run_lines(key: str, answers: Answers, judged: Judgements) -> Iterator[str]:
    found = ranking(answers, judged)
    for query, ids_K, scores_K in zip(judged.query_ids, found.ids_QK.tolist(), found.scores_QK.tolist(), strict=True):
        for rank, (item, score) in enumerate(zip(ids_K, scores_K, strict=True), 1):
            if item >= 0:
                # nine digits tell any two float32 apart
                yield f"{query} Q0 {judged.item_ids[item]} {rank} {score:.9g} {key}"


def _whole(grades_P: np.ndarray) -> np.ndarray:
    grades_P = np.asarray(grades_P, np.float64)
    scale = next((scale for scale in _SCALES if np.allclose(grades_P * scale, np.round(grades_P * scale))), _SCALES[-1])
    return np.maximum(np.round(grades_P * scale), 1).astype(np.int64)


def _write(path: Path, lines: Iterator[str] | list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{line}\n" for line in lines))
    return path
