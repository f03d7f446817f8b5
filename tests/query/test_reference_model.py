"""The real model on real photos: the numbers that the project promises."""

import json

import pytest

from query.cli.main import main


@pytest.fixture(scope="module")
def reference(shared):
    folder = shared / "models" / "lit-vit-ti-16"
    if not folder.is_dir():
        pytest.skip(f"no reference model in {folder}")
    return f"local-dir:{folder}"


def test_unpruned_recall_on_flickr8k(shared, reference, tmp_path, ray_session):
    data = shared / "data" / "flickr8k-test"
    argv = ["evaluate", "--images", str(data), "--captions", str(data / "captions.tsv"), "--model", reference]
    argv += ["--policy", "none", "--bench-images", "32", "--json-file", str(tmp_path / "r.json")]
    assert main(argv) == 0
    metrics = json.loads((tmp_path / "r.json").read_text())["conditions"][0]["metrics"]
    for k, expected in ((1, 0.220), (5, 0.509), (10, 0.634)):
        assert metrics[f"image_retrieval_recall@{k}"] == pytest.approx(expected, abs=0.003)
    for k, expected in ((1, 0.300), (5, 0.597), (10, 0.739)):
        assert metrics[f"text_retrieval_recall@{k}"] == pytest.approx(expected, abs=0.004)


def test_native_photos_are_all_embedded_and_found(shared, reference, tmp_path, ray_session, capsys):
    store = str(tmp_path / "store")
    assert main(["embed", str(shared / "data" / "photos-native"), "--out", store, "--model", reference]) == 0
    assert "300 of 300 images embedded" in capsys.readouterr().out
    assert main(["index", store]) == 0
    capsys.readouterr()
    assert main(["search", store, "a photo of a stingray", "-k", "5", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert "stingray" in hits[0]["key"]
