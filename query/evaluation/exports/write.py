"""Write the results in the formats of other tools."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.durable.atomic import write_json
from pipeline.errors import ConfigError
from query.evaluation.exports import clip_benchmark, mteb, trec
from query.evaluation.exports.ranks import write_ranks_table
from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.data import read_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.heads import head_of
from query.evaluation.raw.ranks import read_ranks
from query.evaluation.record import DataRecord
from query.evaluation.results import ConditionResults, Results

FORMATS = ("clip_benchmark", "mteb", "trec", "ranks")


def write_exports(results: Results, folder: SweepFolder, formats: Sequence[str]) -> list[Path]:
    """Write the results into `exports/FORMAT` of the sweep's folder. Files of earlier exports are replaced by name.

    Args:
        results: The results.
        folder: The sweep, with its raw files.
        formats: Some of `FORMATS`.

    Returns:
        The files, in the order in which they were written.

    Raises:
        ConfigError: If a format is unknown.
        StoreError: If a raw file cannot be read, or a file cannot be written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ConfigError(f"--export {unknown[0]}: expected some of {', '.join(FORMATS)}, separated by commas")
    return [path for name in dict.fromkeys(formats) for path in _WRITERS[name](results, folder)]


def _write_clip_benchmark(results: Results, folder: SweepFolder) -> list[Path]:
    root, baseline = folder.root / "exports" / "clip_benchmark", results.record.baseline.key
    records = {data.name: data for data in results.record.data}
    return [
        _write(
            root / clip_benchmark.file_name(found.condition, records[name]),
            clip_benchmark.as_clip_benchmark(found.condition, records[name], on, found.condition.key == baseline),
        )
        for found in results.conditions
        for name, on in found.on.items()
    ]


def _write_mteb(results: Results, folder: SweepFolder) -> list[Path]:
    root, baseline, written = folder.root / "exports" / "mteb", results.record.baseline.key, []
    splits = {keys["name"]: keys.get("split", "test") for keys in results.record.grid.get("data", [])}
    for data in results.record.data:
        tables = read_data(folder.data(data.name), data.sha256)
        for found in results.conditions:
            if data.name not in found.on:
                continue
            by_task = _answers(results, folder, found, data)
            on, split = found.on[data.name], splits.get(data.name, "test")
            for task, result in mteb.as_mteb(data, tables, by_task, on, split).items():
                written.append(
                    _write(
                        root / mteb.folder_of(found.condition, found.condition.key == baseline) / f"{task}.json", result
                    )
                )
    return written


def _write_trec(results: Results, folder: SweepFolder) -> list[Path]:
    written = []
    for data in results.record.data:
        root = folder.root / "exports" / "trec" / data.name
        tables, tasks = read_data(folder.data(data.name), data.sha256), {}
        for found in results.conditions:
            if data.name in found.on:
                by_task = _answers(results, folder, found, data)
                tasks |= dict.fromkeys(by_task)
                written += trec.write_runs(root, found.condition.key, tables, by_task)
        written += trec.write_qrels(root, tables, list(tasks))
    return written


def _write_ranks(results: Results, folder: SweepFolder) -> list[Path]:
    written = []
    for data in results.record.data:
        tables = read_data(folder.data(data.name), data.sha256)
        by_condition = {
            found.condition.name: _answers(results, folder, found, data)
            for found in results.conditions
            if data.name in found.on
        }
        path = folder.root / "exports" / "ranks" / f"{data.name}.parquet"
        written.append(write_ranks_table(path, data, tables, by_condition))
    return written


def _answers(results: Results, folder: SweepFolder, found: ConditionResults, data: DataRecord) -> dict[str, Answers]:
    head = head_of(results.record, found.condition, data, "ranks")
    return read_ranks(folder.ranks(found.condition.key, data.name), head)


_WRITERS = {"clip_benchmark": _write_clip_benchmark, "mteb": _write_mteb, "trec": _write_trec, "ranks": _write_ranks}


def _write(path: Path, value: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
    return path
