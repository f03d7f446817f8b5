"""What the exported files hold."""

import dataclasses
import json

import numpy as np
import pytest

from pipeline.errors import ConfigError, StoreError
from query.evaluation.exports.names import without_blanks
from query.evaluation.exports.rankings import judgements, ranking
from query.evaluation.exports.trec import write_qrels
from query.evaluation.exports.write import FORMATS, write_exports
from query.evaluation.raw.data import read_data, write_data
from tests.kit.answers import answers_of, photographs, unit


def written(sweep, *formats):
    """Files of an export by their place in its folder."""
    root = sweep.folder.root / "exports" / formats[0]
    return {path.relative_to(root).as_posix(): path for path in write_exports(sweep.results, sweep.folder, formats)}


def test_clip_benchmark_gets_one_file_for_each_condition_with_its_own_names(sweep):
    files = written(sweep, "clip_benchmark")
    assert list(files) == [f"small_{key}_en_zeroshot_retrieval.json" for key in sweep.images]
    whole, pruned = (json.loads(path.read_text()) for path in files.values())
    assert (whole["model"], whole["pretrained"]) == ("ViT-B-16", "openai")
    assert (pruned["model"], pruned["pretrained"]) == ("ViT-B-16", "openai, pruned")
    assert pruned["metrics"] == sweep.metrics("pruned-22222222")
    assert pruned["split_sha256"] == sweep.data.sha256


def test_a_model_without_pretrained_tag_is_still_text_for_clip_benchmark(sweep):
    bare = sweep.results.conditions[0].condition.model_copy(update={"pretrained": None})
    found = dataclasses.replace(sweep.results.conditions[0], condition=bare)
    results = dataclasses.replace(sweep.results, conditions=[found])
    (path,) = write_exports(results, sweep.folder, ["clip_benchmark"])
    assert json.loads(path.read_text())["pretrained"] == ""


def test_classes_are_another_task_of_clip_benchmark(sweep):
    record = sweep.results.record.model_copy(
        update={"data": [sweep.results.record.data[0].model_copy(update={"kind": "classes"})]}
    )
    names = [
        path.name
        for path in write_exports(dataclasses.replace(sweep.results, record=record), sweep.folder, ["clip_benchmark"])
    ]
    assert names[0] == "small_whole-11111111_en_zeroshot_classification.json"


def test_mteb_gets_a_folder_for_each_model_and_condition(sweep):
    files = written(sweep, "mteb")
    models = {"whole-11111111": "ViT-B-16_openai", "pruned-22222222": "ViT-B-16_openai_pruned"}
    assert list(files) == [
        f"results/{model}/{key}/Small{task}.json"
        for key, model in models.items()
        for task in ("T2IRetrieval", "I2TRetrieval")
    ]
    found = json.loads(files["results/ViT-B-16_openai_pruned/pruned-22222222/SmallT2IRetrieval.json"].read_text())
    (scores,) = found["scores"]["test"]
    assert found["dataset_revision"] == sweep.data.sha256
    assert scores["main_score"] == scores["ndcg_at_10"]
    assert scores["hit_rate_at_5"] == pytest.approx(
        sweep.metrics("pruned-22222222")["image_retrieval_recall@5"], abs=1e-6
    )


def test_runs_and_qrels_have_one_word_for_each_key(sweep):
    files = written(sweep, "trec")
    assert list(files) == [
        "small/whole-11111111.image_retrieval.run",
        "small/whole-11111111.text_retrieval.run",
        "small/pruned-22222222.image_retrieval.run",
        "small/pruned-22222222.text_retrieval.run",
        "small/image_retrieval.qrels",
        "small/text_retrieval.qrels",
    ]
    qrels = files["small/image_retrieval.qrels"].read_text().splitlines()
    assert qrels[0] == "t0 0 a%20dog.jpg 1"
    assert qrels[5] == "t5 0 a%2520dog.jpg 1"
    assert len(qrels) == 300
    run = [line.split() for line in files["small/pruned-22222222.text_retrieval.run"].read_text().splitlines()]
    assert {len(words) for words in run} == {6}
    assert len(run) == 60 * 100
    assert [run[0][0], run[0][1], run[0][5]] == ["a%20dog.jpg", "Q0", "pruned-22222222"]


def test_no_two_keys_become_one_word():
    keys = ["a b", "a%20b", "a\tb", "a\u00a0b", "ab", "a\u2028b", "é 1"]
    words = [without_blanks(key) for key in keys]
    assert len(set(words)) == len(keys)
    assert all(word.split() == [word] for word in words)
    assert without_blanks("folder/é-1.jpg") == "folder/é-1.jpg"


def test_of_equal_scores_the_wrong_item_is_first_and_scores_fall(tmp_path):
    data = photographs(4, 1)
    write_data(tmp_path, data)
    tables = read_data(tmp_path)
    same = unit(np.ones((4, 2)))
    answers = answers_of(same, same, tables)["image_retrieval"]
    found = ranking(answers, judgements(tables, "image_retrieval"))
    assert found.ids_QK[:, 3].tolist() == [0, 1, 2, 3]
    assert (answers.above_Q + answers.tied_Q).tolist() == [3, 3, 3, 3]
    assert (np.diff(found.scores_QK[:, :4], axis=1) < 0).all()


def test_fractions_of_grades_become_whole_numbers(sweep, tmp_path):
    grades = np.tile(np.array([1, 0.5, 0.25], np.float32), 100)
    tables = dataclasses.replace(sweep.tables, grades_P=grades)
    path, _ = write_qrels(tmp_path, tables, ["image_retrieval", "text_retrieval"])
    assert [line.split()[3] for line in path.read_text().splitlines()[:3]] == ["100", "50", "25"]


def test_an_unknown_format_names_those_that_there_are(sweep):
    with pytest.raises(ConfigError, match="--export csv: expected some of clip_benchmark, mteb, trec"):
        write_exports(sweep.results, sweep.folder, ["mteb", "csv"])
    assert not (sweep.folder.root / "exports").exists()


def test_a_cut_raw_file_is_refused_by_name(sweep):
    path = sweep.folder.ranks("pruned-22222222", "small")
    path.write_bytes(path.read_bytes()[:-100])
    for name in FORMATS[1:]:
        with pytest.raises(StoreError, match=r"pruned-22222222\.ranks\.parquet is damaged"):
            write_exports(sweep.results, sweep.folder, [name])
