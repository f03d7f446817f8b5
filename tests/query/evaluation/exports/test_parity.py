"""The same numbers from the tools that others use: CLIP_benchmark's own code, and trec_eval by pytrec_eval.

They need packages that we do not, so they run in an environment of their own.
"""

import csv
import dataclasses
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from query.evaluation.exports.rankings import judgements, ranking, trec_measures
from query.evaluation.exports.trec import write_qrels, write_runs
from query.evaluation.exports.write import write_exports
from tests.kit.finished_sweep import NUM_IMAGES, PER_IMAGE, key_of
from tests.kit.wanted import skip_or_fail

PYTHON = "CLIPSIEVE_PARITY"
"""Names the variable with the path of a Python that has clip-benchmark and pytrec-eval-terrier."""
PRUNED = key_of("pruned")
KS = (1, 3, 5, 10, 20, 100)
TREC_NAMES = {
    "ndcg": "ndcg_cut",
    "map": "map_cut",
    "recall": "recall",
    "precision": "P",
    "hit_rate": "success",
}


@pytest.fixture
def other():
    """Runs a program of the other environment, and returns what it prints."""
    python = os.environ.get(PYTHON)
    if not python:
        skip_or_fail(f"CLIP_benchmark and pytrec_eval are not installed; set {PYTHON} to a Python that has them")
    # nothing of ours but what its own path names
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(program, *arguments):
        command = [Path(python).with_name(program), *map(str, arguments)]
        found = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr[-5000:]
        return found.stdout

    return run


def judged_elsewhere(other, *arguments):
    script = Path(__file__).with_name("judged_elsewhere.py")
    return json.loads(other(Path(os.environ[PYTHON]).name, script, *arguments).splitlines()[-1])


def test_recall_is_that_of_clip_benchmark(sweep, recall, other, tmp_path):
    for name, images_NE in sweep.images.items():
        of_texts = np.arange(len(sweep.texts_QE)) // PER_IMAGE
        np.savez(tmp_path / "vectors.npz", images=images_NE, texts=sweep.texts_QE, images_of_texts=of_texts)
        found = judged_elsewhere(other, "clip_benchmark", tmp_path / "vectors.npz")
        # the image without captions counts as missed there; here no query is counted that nothing answers
        counted = {"image": 1, "text": NUM_IMAGES / (NUM_IMAGES + 1)}
        expected = {metric: value * counted[metric.partition("_")[0]] for metric, value in recall(name).items()}
        assert found == pytest.approx(expected, abs=1e-6)
    assert 0.2 < found["image_retrieval_recall@5"] < 0.95


def test_clip_benchmark_builds_its_table_of_our_files(sweep, results, recall, other, tmp_path):
    files = write_exports(results, sweep.folder, ["clip_benchmark"])
    other("clip_benchmark", "build", files[0].parent, "--output", tmp_path / "benchmark.csv")
    with (tmp_path / "benchmark.csv").open(newline="") as file:
        rows = {row["model_fullname"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"ViT-B-16 openai", "ViT-B-16 openai, pruned"}
    expected = recall("pruned")
    assert {metric: float(rows["ViT-B-16 openai, pruned"][metric]) for metric in expected} == expected


@pytest.mark.parametrize("task", ["image_retrieval", "text_retrieval"])
def test_trec_eval_finds_our_measures_in_runs_and_qrels(sweep, results, recall, other, task):
    write_exports(results, sweep.folder, ["trec"])
    root = sweep.folder.root / "exports" / "trec" / "small"
    found = judged_elsewhere(other, "pytrec_eval", root / f"{task}.qrels", root / f"{PRUNED}.{task}.run")
    judged = judgements(sweep.tables, task)
    assert found["num_queries"] == len(judged.query_ids)
    assert_equal(trec_measures(ranking(sweep.answers["pruned"][task], judged), judged, KS), found)
    for k in (1, 5, 10):
        assert found[f"success_{k}"] == pytest.approx(recall("pruned")[f"{task}_recall@{k}"])
    metrics = results.of(PRUNED).on["small"].metrics
    assert found["ndcg_cut_10"] == pytest.approx(metrics[f"{task}_ndcg@10"].value)


def test_trec_eval_agrees_on_graded_answers_and_on_equal_scores(sweep, other, tmp_path):
    task = "text_retrieval"
    grades = np.tile(np.array([1, 0.5, 0.25, 0.25, 0.75], np.float32), NUM_IMAGES)
    tables = dataclasses.replace(sweep.tables, grades_P=grades)
    answers = sweep.answers["pruned"][task]
    rounded = dataclasses.replace(answers, scores_QK=np.round(answers.scores_QK, 1))
    assert (np.diff(rounded.scores_QK, axis=1) == 0).mean() > 0.5
    _, qrels = write_qrels(tmp_path, tables, ["image_retrieval", task])
    (run,) = write_runs(tmp_path, PRUNED, tables, {task: rounded})
    judged = judgements(tables, task)
    ours = trec_measures(ranking(rounded, judged), judged, KS)
    assert_equal(ours, judged_elsewhere(other, "pytrec_eval", qrels, run))
    assert ours["ndcg_at_10"] < trec_measures(ranking(answers, judged), judged, (10,))["ndcg_at_10"]


def assert_equal(ours, theirs):
    for name, value in ours.items():
        measure, _, k = name.rpartition("_at_")
        if measure == "mrr":
            assert k != "100" or value == pytest.approx(theirs["recip_rank"])
        else:
            assert value == pytest.approx(theirs[f"{TREC_NAMES[measure]}_{k}"]), name
