"""The command line as users see it: errors, exit codes, and the chain embed - index - search - evaluate."""

import json
import shutil
import socket
import subprocess
import sys

import pytest
from PIL import Image

from query.cli.main import main
from query.evaluation.raw.data import read_data
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.ranks import read_ranks
from query.evaluation.raw.timings import read_rounds


def test_search_json_has_the_documented_fields(store, capsys):
    assert main(["search", str(store), "a cat", "-k", "4", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["query"] == "a cat"
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4]
    own = {"rank", "id", "key", "uri", "score", "relevance", "caption", "duplicates"}
    assert set(answer["hits"][0]) == own | {"width", "height"}
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_search_finds_every_good_image_and_no_broken_one(store, capsys):
    assert main(["search", str(store), "a cat", "-k", "100", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert len(hits) == 12
    assert "broken.jpg" not in {hit["key"] for hit in hits}
    captions = {hit["key"]: hit["caption"] for hit in hits}
    assert (captions["photo-01.png"], captions["photo-02.jpg"]) == ("a cat", None)


def test_search_writes_a_sheet(store, tmp_path, capsys):
    assert main(["search", str(store), "a cat", "-k", "3", "--sheet", str(tmp_path / "hits.png")]) == 0
    with Image.open(tmp_path / "hits.png") as sheet:
        assert sheet.width > 3 * 160
    assert "photo-" in capsys.readouterr().out


def test_evaluate_writes_the_documented_json(store, tiny_model, tmp_path, ray_session):
    folder = store.parent
    argv = ["evaluate", "--images", str(folder / "photos"), "--captions", str(folder / "captions.tsv")]
    argv += [
        "--model",
        tiny_model,
        "--keep-ratio",
        "0.5",
        "--json-file",
        str(tmp_path / "r.json"),
        "--bench-images",
        "8",
    ]
    assert main(argv) == 0
    results = json.loads((tmp_path / "r.json").read_text())
    unpruned, pruned = results["conditions"]
    assert (unpruned["name"], pruned["name"]) == ("none", "reference(0.5)")
    assert "deltas" not in unpruned
    assert set(pruned["deltas"]) == set(pruned["metrics"]) == set(unpruned["metrics"])
    for metric, delta in pruned["deltas"].items():
        assert delta["value"] == pytest.approx(pruned["metrics"][metric] - unpruned["metrics"][metric])
        low, high = delta["ci95"]
        assert low <= delta["value"] <= high
        assert delta["method"] in ("bootstrap", "exact")
    assert pruned["estimates"].keys() == unpruned["estimates"].keys()
    for name in ("image_retrieval_recall@5(expected)", "text_retrieval_median_rank", "image_retrieval_ndcg@10"):
        low, high = pruned["estimates"][name]["ci95"]
        assert low <= pruned["estimates"][name]["value"] <= high
    assert pruned["cosine_to_unpruned"] == pruned["fidelity"]["cosine_mean"] < 1 == unpruned["cosine_to_unpruned"]
    assert len(results["dataset_sha256"]) == 64
    low, high = pruned["speedup"]["ci95"]
    assert low <= pruned["speedup"]["measured"] <= high
    assert pruned["policy"]["schedule"]["cuts"][0]["keep"] == 0.5
    assert pruned["speedup"]["theoretical"] == pytest.approx(unpruned["gmacs"] / pruned["gmacs"])
    assert pruned["gmacs"] < unpruned["gmacs"]
    assert min(unpruned["images_per_second"], unpruned["images_per_second_end_to_end"]) > 0
    assert (results["num_images"], results["num_captions"]) == (12, 3)
    assert (results["num_failed_images"], results["num_left_out"], results["num_cut_captions"]) == (1, 0, 0)
    # unpruned and pruned images share their text space
    assert unpruned["fingerprint"].split("-")[0] == pruned["fingerprint"].split("-")[0]


def test_evaluate_compares_int8_with_the_same_in_float(store, tiny_model, tmp_path, ray_session, capsys):
    folder = store.parent
    argv = ["evaluate", "--images", str(folder / "photos"), "--captions", str(folder / "captions.tsv")]
    argv += ["--model", tiny_model, "--policies", "balanced", "--precisions", "fp32,int8", "--device", "cpu"]
    assert main([*argv, "--bench-images", "8", "--json-file", str(tmp_path / "r.json")]) == 0
    none, balanced, none8, balanced8 = json.loads((tmp_path / "r.json").read_text())["conditions"]
    assert [one["name"] for one in (none8, balanced8)] == ["none+int8", "balanced+int8"]
    assert [one["precision"] for one in (none, balanced, none8, balanced8)] == ["fp32", "fp32", "int8", "int8"]
    assert len({one["fingerprint"] for one in (none, balanced, none8, balanced8)}) == 4
    against = balanced8["against_float"]
    assert against["condition"] == "balanced"
    assert none8["against_float"]["fidelity"]["cosine_mean"] == pytest.approx(none8["cosine_to_unpruned"])
    assert 0.9 < none8["cosine_to_unpruned"] < 1.001  # stored in half precision
    assert none8["cosine_to_unpruned"] != 1
    for metric, value in balanced8["metrics"].items():
        assert against["deltas"][metric]["value"] == pytest.approx(value - balanced["metrics"][metric])
    assert against["speedup"]["measured"] > 0
    assert capsys.readouterr().out.count("against") == 2  # its cell may be wrapped


def test_an_evaluation_into_the_same_folder_ranks_the_images_that_are_there_now(
    photos, tiny_model, make_image, tmp_path, ray_session, capsys
):
    source = shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "captions.tsv").write_text(f"photo-01.png\ta cat {'in the snow ' * 40}\n./more/photo-03.png\ta dog\n")
    argv = ["evaluate", "--images", str(source), "--captions", str(tmp_path / "captions.tsv"), "--policy", "none"]
    argv += ["--out", str(tmp_path / "out"), "--model", tiny_model, "--bench-images", "2", "--device", "cpu", "--json"]
    assert main(argv) == 0
    captured = capsys.readouterr()
    first = json.loads(captured.out)
    assert (first["num_images"], first["num_failed_images"], first["num_left_out"]) == (12, 0, 0)
    assert "warning: 1 of 2 captions are longer than the 77 tokens that the model reads" in captured.err
    raw = SweepFolder(tmp_path / "out" / "results")
    tables = read_data(raw.data("images"), first["dataset_sha256"])
    assert (len(tables.keys), tables.titles[0]) == (12, "a dog")
    answers = read_ranks(raw.ranks("none", "images"))
    assert [found.ids_QK.shape for found in answers.values()] == [(2, 100), (12, 100)]
    assert len(read_rounds(raw.timings)) == first["environment"]["rounds"]
    (source / "photo-02.jpg").unlink()
    make_image(33, 44, 99).save(source / "photo-05.png")
    (source / "new.jpg").write_text("no image")
    assert main(argv) == 0
    second = json.loads(capsys.readouterr().out)
    assert (second["num_images"], second["num_failed_images"], second["num_left_out"]) == (11, 1, 1)


def test_a_tower_that_cannot_be_pruned_is_evaluated_unpruned(store, resnet_model, ray_session, tmp_path, capsys):
    folder = store.parent
    argv = ["evaluate", "--images", str(folder / "photos"), "--captions", str(folder / "captions.tsv")]
    argv += ["--model", resnet_model, "--json-file", str(tmp_path / "r.json"), "--bench-images", "4"]
    assert main(argv) == 0
    assert "warning: this image tower cannot be pruned: ModifiedResNet" in capsys.readouterr().err
    assert [c["name"] for c in json.loads((tmp_path / "r.json").read_text())["conditions"]] == ["none"]
    assert main([*argv, "--policy", "fast"]) == 3
    assert "ModifiedResNet is not a Vision Transformer; use the policy `none`" in capsys.readouterr().err


def test_wrong_policies_name_field_value_and_range(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    for text, message in [
        (
            "schedule: {kind: stages, cuts: [{depth: 0.2, keep: 1.5}]}",
            "keep = 1.5: Input should be less than or equal to 1",
        ),
        ("schedule: {kind: stages, cuts: [{depth: 0.2, keep: 0}]}", "keep = 0: Input should be greater than 0"),
        ("schedule: {kind: stages, cuts: [{depth: 1.0, keep: 0.5}]}", "depth = 1.0: Input should be less than 1"),
        ("score: magic", "score = 'magic': Input should be 'l2', "),
        ("schedule: {kind: stages, cuts: [{depth: 0.2, keep: 0.001}]}", "keeps 0 of 144 patch tokens at block 1 of 8"),
        ("gmac_ratio: 30\nschedule: {kind: geometric, ratio: 0.9}", "gmac_ratio = 30: policy 'mine' reaches at most"),
    ]:
        path.write_text(text)
        assert main(["inspect", "--policy", str(path)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_changed_weights_are_refused_by_search(photos, tiny_model, tmp_path, ray_session, capsys):
    model = tmp_path / "model"
    shutil.copytree(tiny_model.removeprefix("local-dir:"), model)
    argv = ["embed", str(photos), "--out", str(tmp_path / "store"), "--model", f"local-dir:{model}"]
    assert main(argv) == 0
    assert main(["index", str(tmp_path / "store")]) == 0
    _change_text_weights(model / "open_clip_model.safetensors")
    assert main(["search", str(tmp_path / "store"), "a cat"]) == 4
    assert "text space" in capsys.readouterr().err


def _change_text_weights(path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors["ln_final.bias"] = tensors["ln_final.bias"] + 1
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["bogus"], 2, "unknown verb 'bogus': expected one of demo, embed"),
        (["serach", "store"], 2, "unknown verb 'serach': did you mean search?"),
        (["bench", "modl"], 2, "unknown verb 'bench modl': did you mean bench model?"),
        (["bench", "policies", "grid.yaml"], 2, "`clipsieve bench policies` is gone; use `clipsieve sweep GRID.yaml"),
        (["sweep", "--out", "y"], 2, "GRID is missing; give a YAML file"),
        (["sweep", "grid.yaml"], 2, "out is missing; give --out"),
        (["sweep", "--out", "y", "--report-only", "--again"], 2, "give only one"),
        (["sweep", "x", "--out", "y", "--export", "trec,csv"], 2, "expected formats among clip_benchmark, mteb, trec"),
        (["completion", "tcsh"], 2, "shell = 'tcsh'"),
        (["search", "store"], 2, "QUERY"),
        (["embed", "x", "--out", "y", "--keep-ratio", "1.5"], 2, "keep_ratio"),
        (["embed", "x", "--out", "y", "--bogus", "1"], 2, "--bogus"),
        (["embed", "x"], 2, "out is missing"),
        (["embed", "no-such-folder", "--out", "y"], 3, "does not exist"),
        (["index", "no-such-store"], 4, "no store at"),
        (["search", "no-such-store", "a cat"], 4, "no store at"),
        (["search", "no-such-store", "  "], 3, "the query is empty"),
        (["evaluate", "--images", "no-such", "--captions", "no-such.tsv"], 3, "no-such.tsv"),
        (["demo", "--out", "/proc/no-such"], 3, "cannot write /proc/no-such"),
        (["embed", "no\nsuch\x1b[31m\u202efolder", "--out", "y"], 3, r"no\nsuch\x1b[31m\u202efolder does not exist"),
        (["embed", "ünïcode フォルダ", "--out", "y"], 3, "ünïcode フォルダ does not exist"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(argv, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_demo_deletes_only_its_own_files(tmp_path, capsys):
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "photo.jpg").write_text("not made by a demo")
    assert main(["demo", "--out", str(tmp_path)]) == 3
    assert "not made by `clipsieve demo`; choose another --out" in capsys.readouterr().err
    assert (tmp_path / "scenes" / "photo.jpg").exists()


def test_a_cluster_that_does_not_answer(photos, tmp_path, monkeypatch):
    # in a separate process, because this one may already be connected to Ray
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"  # bound, but not listening
        command = ["embed", str(photos), "--out", str(tmp_path / "store"), "--ray-address", address]
        code = f"import sys; from query.cli.main import main; sys.exit(main({command!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert f"cannot connect to Ray at {address}" in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_config_file_works_like_flags(store, tmp_path, capsys):
    config = tmp_path / "search.yaml"
    config.write_text(f"store: {store}\nquery: a cat\nk: 2\njson: true\n")
    assert main(["search", "--config", str(config)]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 2
    assert main(["search", "--config", str(config), "-k", "3"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 3


def test_shipped_configs_are_valid():
    from pathlib import Path

    from pipeline.settings.embed import EmbedSettings
    from pipeline.settings.load import load_settings
    from query.settings import EvaluateSettings

    configs = Path(__file__).parents[2] / "configs"
    for path in sorted(configs.glob("embed-*.yaml")):
        assert load_settings(EmbedSettings, "embed", ["photos", "--out", "x", "--config", str(path)], "").model
    for path in sorted(configs.glob("evaluate-*.yaml")):
        argv = ["--images", "x", "--captions", "y", "--config", str(path)]
        assert load_settings(EvaluateSettings, "evaluate", argv, "").model
