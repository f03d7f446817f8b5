"""What the exported files hold."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, StoreError
from query.evaluation.exports.names import without_blanks
from query.evaluation.exports.rankings import judgements, ranking
from query.evaluation.exports.ranks import write_ranks_table
from query.evaluation.exports.trec import write_qrels
from query.evaluation.exports.write import FORMATS, write_exports
from query.evaluation.raw.data import read_data, write_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.ranks import read_ranks
from tests.kit.answers import answers_of, photographs, unit
from tests.kit.finished_sweep import key_of

WHOLE, PRUNED = key_of("whole"), key_of("pruned")


def written(sweep, results, name):
    """Files of an export by their place in its folder."""
    root = sweep.folder.root / "exports" / name
    return {path.relative_to(root).as_posix(): path for path in write_exports(results, sweep.folder, [name])}


def test_clip_benchmark_gets_one_file_for_each_condition_with_its_own_names(sweep, results, recall):
    files = written(sweep, results, "clip_benchmark")
    assert list(files) == [f"small_{key}_en_zeroshot_retrieval.json" for key in (WHOLE, PRUNED)]
    whole, pruned = (json.loads(path.read_text()) for path in files.values())
    assert (whole["model"], whole["pretrained"]) == ("ViT-B-16", "openai")
    assert (pruned["model"], pruned["pretrained"]) == ("ViT-B-16", "openai, pruned")
    assert pruned["metrics"] == recall("pruned")
    assert pruned["split_sha256"] == sweep.data.sha256


def test_a_model_without_pretrained_tag_is_still_text_for_clip_benchmark(sweep, results):
    bare = results.conditions[0].condition.model_copy(update={"pretrained": None})
    found = dataclasses.replace(results.conditions[0], condition=bare)
    (path,) = write_exports(dataclasses.replace(results, conditions=[found]), sweep.folder, ["clip_benchmark"])
    assert json.loads(path.read_text())["pretrained"] == ""


def test_classes_are_another_task_of_clip_benchmark(sweep, results):
    data = [results.record.data[0].model_copy(update={"kind": "classes"})]
    results = dataclasses.replace(results, record=results.record.model_copy(update={"data": data}))
    path, _ = write_exports(results, sweep.folder, ["clip_benchmark"])
    assert path.name == f"small_{WHOLE}_en_zeroshot_classification.json"


def test_mteb_gets_a_folder_for_each_model_and_condition(sweep, results, recall):
    files = written(sweep, results, "mteb")
    models = {WHOLE: "ViT-B-16_openai", PRUNED: "ViT-B-16_openai_pruned"}
    assert list(files) == [
        f"results/{model}/{key}/Small{task}.json"
        for key, model in models.items()
        for task in ("T2IRetrieval", "I2TRetrieval")
    ]
    for task, kind in (("image_retrieval", "T2I"), ("text_retrieval", "I2T")):
        found = json.loads(files[f"results/{models[PRUNED]}/{PRUNED}/Small{kind}Retrieval.json"].read_text())
        (scores,) = found["scores"]["test"]
        assert found["dataset_revision"] == sweep.data.sha256
        assert found["task_name"] == f"Small{kind}Retrieval"
        assert scores["main_score"] == scores["ndcg_at_10"]
        metrics = results.of(PRUNED).on["small"].metrics
        assert scores["ndcg_at_10"] == pytest.approx(metrics[f"{task}_ndcg@10"].value, abs=1e-6)
        for k in (1, 5, 10):
            assert scores[f"hit_rate_at_{k}"] == pytest.approx(recall("pruned")[f"{task}_recall@{k}"], abs=1e-6)


def test_runs_and_qrels_have_one_word_for_each_key(sweep, results):
    files = written(sweep, results, "trec")
    assert list(files) == [
        *[f"small/{key}.{task}.run" for key in (WHOLE, PRUNED) for task in ("image_retrieval", "text_retrieval")],
        "small/image_retrieval.qrels",
        "small/text_retrieval.qrels",
    ]
    qrels = files["small/image_retrieval.qrels"].read_text().splitlines()
    assert qrels[0] == "t0 0 a%20dog.jpg 1"
    assert qrels[5] == "t5 0 a%2520dog.jpg 1"
    assert len(qrels) == 300
    run = [line.split() for line in files[f"small/{PRUNED}.text_retrieval.run"].read_text().splitlines()]
    assert {len(words) for words in run} == {6}
    assert len(run) == 60 * 100  # the image without captions asks for nothing
    assert [run[0][0], run[0][1], run[0][5]] == ["a%20dog.jpg", "Q0", PRUNED]


def test_no_two_keys_become_one_word():
    keys = ["a b", "a%20b", "a\tb", "a\u00a0b", "ab", "a\u2028b", "é 1"]
    words = [without_blanks(key) for key in keys]
    assert len(set(words)) == len(keys)
    assert all(word.split() == [word] for word in words)
    assert without_blanks("folder/é-1.jpg") == "folder/é-1.jpg"


def test_of_equal_scores_the_wrong_item_is_first_and_scores_fall(tmp_path):
    write_data(tmp_path, photographs(5, 1))
    tables = read_data(tmp_path)
    same = unit(np.ones((5, 2)))
    answers = answers_of(same[:4], same, tables)["image_retrieval"]
    found = ranking(answers, judgements(tables, "image_retrieval"))
    assert found.ids_QK[:, 4].tolist() == [0, 1, 2, 3]
    assert (answers.above_Q + answers.tied_Q).tolist() == [4, 4, 4, 4]
    assert (np.diff(found.scores_QK[:, :5], axis=1) < 0).all()


def test_fractions_of_grades_become_whole_numbers(sweep, tmp_path):
    grades = np.tile(np.array([1, 0.5, 0.25], np.float32), 100)
    path, _ = write_qrels(
        tmp_path, dataclasses.replace(sweep.tables, grades_P=grades), ["image_retrieval", "text_retrieval"]
    )
    assert [line.split()[3] for line in path.read_text().splitlines()[:3]] == ["100", "50", "25"]


def test_an_unknown_format_names_those_that_there_are(sweep, results, tmp_path):
    with pytest.raises(ConfigError, match="--export csv: expected some of clip_benchmark, mteb, trec"):
        write_exports(results, SweepFolder(tmp_path), ["clip_benchmark", "csv"])
    assert not list(tmp_path.iterdir())


def test_a_cut_raw_file_is_refused_by_name(sweep, results, tmp_path):
    folder = SweepFolder(shutil.copytree(sweep.folder.root, tmp_path / "cut"))
    path = folder.ranks(PRUNED, "small")
    path.write_bytes(path.read_bytes()[:-100])
    for name in FORMATS[1:]:
        with pytest.raises(StoreError, match=rf"{PRUNED}\.ranks\.parquet is damaged"):
            write_exports(results, folder, [name])


def test_recall_can_be_counted_from_the_ranks(sweep, results, recall):
    (path,) = written(sweep, results, "ranks").values()
    table = pq.read_table(path)
    assert table.schema.metadata[b"split_sha256"].decode() == sweep.data.sha256
    for name in ("whole", "pruned"):
        for metric, value in recall(name).items():
            task, _, k = metric.partition("_recall@")
            of_task = table.filter(pa.array(np.array(table["task"]) == task))
            asks = np.isin(of_task["query"].to_numpy(), sweep.data.pairs_P2[:, 0 if task == "image_retrieval" else 1])
            ranks = of_task[name].to_numpy(zero_copy_only=False)[asks]
            assert (ranks <= int(k)).mean() == pytest.approx(value)


def test_distractors_ask_for_no_text_in_the_ranks(sweep, results, tmp_path):
    data = results.record.data[0]
    tables = read_data(sweep.folder.data(data.name))
    larger = dataclasses.replace(tables, keys=[*tables.keys, "distractors-1/a.jpg"], uris=[*tables.uris, "file:///a"])
    by_task = read_ranks(sweep.folder.ranks(WHOLE, data.name))
    path = write_ranks_table(tmp_path / "ranks.parquet", data, larger, {"whole": by_task})
    tasks = pq.read_table(path)["task"].to_pylist()
    assert tasks.count("text_retrieval") == tables.num_own < len(larger.keys)
