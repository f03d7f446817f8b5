"""`clipsieve search` on a small store: what is shown, and what a user is warned of."""

import json
import shutil

import open_clip
import pyarrow.csv
import pytest
import torch
from safetensors.torch import save_file

from indexer.build import build_index
from indexer.settings import IndexSettings
from query.cli.main import main
from query.cli.search import print_hits
from query.hits.hit import Hit
from tests.kit.hits import hits_of
from tests.kit.plain_embed import embed_plainly


@pytest.fixture(scope="module")
def searchable(tmp_path_factory, photos, tiny_model):
    """An indexed store whose source has lost an image since."""
    folder = tmp_path_factory.mktemp("searchable")
    source = shutil.copytree(photos, folder / "photos")
    store = embed_plainly(source, folder / "store", tiny_model)
    build_index(IndexSettings(store=store.root))
    (source / "photo-01.png").unlink()
    return store.root


def test_a_query_that_is_cut(searchable, capsys):
    assert main(["search", str(searchable), "two dogs " * 50, "--device", "cpu", "--json"]) == 0
    captured = capsys.readouterr()
    [warning] = json.loads(captured.out)["warnings"]
    assert warning == "the query is longer than the 77 tokens that the model reads; the rest is ignored"
    assert captured.err == f"warning: {warning}\n"
    assert main(["search", str(searchable), "two dogs", "--device", "cpu", "--json"]) == 0
    captured = capsys.readouterr()
    assert (json.loads(captured.out)["warnings"], captured.err) == ([], "")


def test_an_image_that_has_moved(searchable, tmp_path, capsys):
    argv = ["search", str(searchable), "a cat", "-k", "12", "--device", "cpu", "--sheet", str(tmp_path / "s.webp")]
    assert main(argv) == 0
    error = capsys.readouterr().err
    assert error.startswith("warning: 1 of 12 images cannot be shown on the sheet, first 'photo-01.png' (No such file")
    assert (tmp_path / "s.webp").read_bytes()[8:12] == b"WEBP"


def test_names_and_captions_are_shown_as_they_are(capsys):
    hit = Hit(rank=1, id=1, key="a[bold].png", uri="file:///a", score=0.5, caption="a [red]car[/red] :dog:")
    print_hits("[dim]two dogs :cat:", hits_of([hit]))
    shown = capsys.readouterr().out
    for text in ("a[bold].png", "a [red]car[/red] :dog:", "[dim]two dogs :cat:"):
        assert text in shown


@pytest.fixture(scope="module")
def other(tmp_path_factory, photos, other_model):
    """A store of the same photos but one, in the space of another model."""
    folder = tmp_path_factory.mktemp("other")
    source = shutil.copytree(photos, folder / "photos")
    (source / "photo-02.jpg").unlink()
    store = embed_plainly(source, folder / "store", other_model)
    build_index(IndexSettings(store=store.root))
    return store.root


@pytest.fixture(scope="module")
def other_model(tmp_path_factory, tiny_config):
    """A tiny CLIP with other weights."""
    folder = tmp_path_factory.mktemp("other-model")
    (folder / "open_clip_config.json").write_text(json.dumps(tiny_config))
    with torch.random.fork_rng():
        torch.manual_seed(8)
        save_file(open_clip.CLIP(**tiny_config["model_cfg"]).state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def test_two_stores_of_different_models(searchable, other, tmp_path, capsys):
    def keys(store):
        assert main(["search", str(store), "a cat", "-k", "6", "--device", "cpu", "--json"]) == 0
        return [hit["key"] for hit in json.loads(capsys.readouterr().out)["hits"]]

    first, second = keys(searchable), keys(other)
    argv = ["search", str(searchable), "a cat", "--store2", str(other), "-k", "6", "--device", "cpu"]
    files = ["--out", str(tmp_path / "both.csv"), "--sheet", str(tmp_path / "both.png")]
    assert main([*argv, *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stores"] == [str(searchable), str(other)]
    by_rank = [{pair[name]: pair["key"] for pair in found["pairs"] if pair[name]} for name in ("rank", "rank2")]
    assert by_rank == [dict(enumerate(first, 1)), dict(enumerate(second, 1))]  # each with its own text tower
    assert found["overlap"] == len({*first} & {*second}) / 6
    assert {pair["key"]: pair["in_store2"] for pair in found["pairs"]}.get("photo-02.jpg") in (None, False)
    assert found["first"]["timings_ms"]["index"] > 0
    assert {row["key"] for row in pyarrow.csv.read_csv(tmp_path / "both.csv").to_pylist()} == {*first, *second}
    assert (tmp_path / "both.png").exists()
    assert main([*argv, "a dog"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("rank-biased overlap") == 2
    assert f"2: {other}" in shown.replace("\n", "")


def test_images_of_the_store_in_two_stores(searchable, other, capsys):
    argv = ["search", str(searchable), "--store2", str(other), "--device", "cpu", "--json", "-k", "20"]
    assert main([*argv, "--like", "photo-05.png"]) == 0
    pairs = json.loads(capsys.readouterr().out)["pairs"]
    assert "photo-05.png" not in {pair["key"] for pair in pairs}
    assert [pair["key"] for pair in pairs if pair["in_store2"] is False] == ["photo-02.jpg"]
    assert main([*argv, "--like", "3"]) == 2
    assert "each store has ids of its own; with --store2, name images by their keys" in capsys.readouterr().err
    assert main([*argv, "--like", "photo-02.jpg"]) == 3
    assert f"the index of {other} has no image with the key 'photo-02.jpg'" in capsys.readouterr().err
