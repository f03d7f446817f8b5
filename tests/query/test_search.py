"""`clipsieve search` on a small store: what is shown, and what a user is warned of."""

import json
import shutil

import pytest

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
