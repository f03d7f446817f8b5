"""`--json` prints JSON and nothing else on standard output; `--json-file` writes the same."""

import json

import pytest

from query.cli.main import main


@pytest.fixture
def run(capsys):
    """Runs a verb with `--json`, and returns the parsed output."""

    def run_json(*argv, code=0):
        capsys.readouterr()
        assert main([*map(str, argv), "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return run_json


@pytest.fixture
def captioned(store):
    return ["--images", store.parent / "photos", "--captions", store.parent / "captions.tsv"]


def test_a_store_from_embed_to_compact(photos, tiny_model, tmp_path, ray_session, run):
    store = tmp_path / "store"
    found = run("embed", photos, "--out", store, "--model", tiny_model, "--precision", "fp32")
    assert (found["num_images"], found["num_ok"], found["failed"], found["num_embedded"]) == (12, 12, {}, 12)
    assert found["images_per_second_end_to_end"] > 0
    assert (found["store"], found["warnings"]) == (str(store), [])
    found = run("index", store)
    assert (found["num_vectors"], found["embedding_dim"]) == (12, 32)
    (tmp_path / "keys.txt").write_text("photo-01.png\n")
    found = run("delete", store, "--keys", tmp_path / "keys.txt")
    assert found == {"store": str(store), "num_keys": 1, "num_before": 0, "num_rows": 1}
    found = run("compact", store)
    assert (found["num_rows"], found["num_parts"]) == (1, 1)
    assert run("verify", store)["findings"] == []


def test_a_dry_run(photos, tiny_model, tmp_path, run):
    found = run("embed", photos, "--out", tmp_path / "store", "--model", tiny_model, "--dry-run")
    assert set(found) == {"source", "run", "needs"}
    assert not (tmp_path / "store").exists()


def test_search_and_its_json_file(store, tmp_path, run):
    found = run("search", store, "a cat", "-k", "2", "--device", "cpu", "--json-file", tmp_path / "r.json")
    assert len(found["hits"]) == 2
    assert json.loads((tmp_path / "r.json").read_text()) == found


def test_a_json_file_is_written_next_to_the_table(store, tmp_path, capsys):
    assert main(["search", str(store), "a cat", "-k", "2", "--json-file", str(tmp_path / "r.json")]) == 0
    assert "photo-" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "r.json").read_text())["hits"]) == 2


def test_measurements(captioned, tiny_model, ray_session, run):
    model = ["--model", tiny_model, "--precision", "fp32", "--device", "cpu"]
    found = run("evaluate", *captioned, *model, "--bench-images", "4", "--policy", "fast")
    assert [condition["name"] for condition in found["conditions"]] == ["none", "fast"]
    assert found["environment"]["precision"] == "fp32"
    few = ["--rounds", "1", "--batch-size", "2"]
    found = run("bench", "model", *model, *few, "--batches", "1", "--policy", "fast")
    assert (found["precision"], found["environment"]["device"]) == ("fp32", "cpu")


def test_inspect_at_a_precision(tiny_model, photos, tmp_path, run, capsys):
    argv = ["inspect", "--model", tiny_model, "--precision", "bf16", "--device", "cpu", "--keep-ratio", "0.5"]
    found = run(*argv, "--image", photos / "photo-01.png", "--picture", tmp_path / "kept.png")
    assert len(found["blocks"]) == 4
    assert (tmp_path / "kept.png").is_file()


def test_doctor_at_a_precision(tiny_model, run):
    found = run("doctor", "--model", tiny_model, "--precision", "fp32", "--device", "cpu")
    assert found["what will run where"]["encode"].startswith("cpu, fp32, ")
    assert found["what will run where"]["index and search"] == "CPU"
    assert found["model"][tiny_model].startswith("ok, 32 dimensions")


def test_demo(tmp_path, ray_session, run):
    argv = ["demo", "--out", tmp_path / "demo", "--num-images", "20", "--precision", "fp32", "--device", "cpu"]
    found = run(*argv)
    assert [condition["name"] for condition in found["conditions"]] == ["none", "pruned", "pruned+adapter"]
    assert found["environment"]["precision"] == "fp32"
    assert (tmp_path / "demo" / "sheet.png").is_file()


def test_adapt_and_export(make_image, tiny_model, tmp_path, run):
    (photos := tmp_path / "photos").mkdir()
    for number in range(20):
        make_image(40, 40, number).save(photos / f"{number}.png")
    few = [
        "--steps",
        "1",
        "--batch-size",
        "2",
        "--held-out",
        "4",
        "--rank",
        "2",
        "--policy",
        "fast",
        "--costs",
        "1,1.5",
    ]
    argv = ["adapt", "--model", tiny_model, "--data", photos, "--label-free", "--out", tmp_path / "adapter", *few]
    found = run(*argv, "--precision", "fp32", "--device", "cpu")
    assert (found["adapter"], found["was_there"], found["export"]) == (str(tmp_path / "adapter"), False, None)
    assert set(found["results"]) == {"before", "after"}
    export = ["--from", tmp_path / "adapter", "--export", tmp_path / "merged"]
    assert run("adapt", "--model", tiny_model, *export)["export"] == str(tmp_path / "merged")


def test_findings_are_printed_before_the_error(photos, tiny_model, tmp_path, ray_session, run):
    store = tmp_path / "store"
    run("embed", photos, "--out", store, "--model", tiny_model)
    next((store / "embeddings").glob("part-*.parquet")).write_bytes(b"")
    assert len(run("verify", store, code=4)["findings"]) == 1


def test_a_missing_gpu(store, captioned, tiny_model, tmp_path, monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = ["--model", tiny_model]
    for argv in (["inspect", *model], ["doctor", *model], ["evaluate", *captioned, *model]):
        assert main([*map(str, argv), "--device", "cuda"]) == 2
        assert "device = 'cuda': torch finds no GPU" in capsys.readouterr().err


def test_search_on_a_gpu_that_faiss_does_not_see(store, monkeypatch, capsys):
    import faiss

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert main(["search", str(store), "a cat", "--device", "cuda"]) == 2
    assert "device = 'cuda': FAISS finds no GPU" in capsys.readouterr().err
