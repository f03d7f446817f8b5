"""Indexed stores, for the tests of searching and measuring."""

import shutil

import pytest

from indexer import build_index
from query import Searcher
from query.cli.main import main
from tests.kit.plain_embed import embed_plainly


@pytest.fixture(scope="session")
def store(tmp_path_factory, photos, tiny_model, ray_session):
    """An indexed store over the photos, one of them broken, with captions."""
    folder = tmp_path_factory.mktemp("chain")
    source = shutil.copytree(photos, folder / "photos")
    (source / "broken.jpg").write_text("no image")
    captions = "photo-01.png\ta cat\nphoto-01.png\ta second caption\nmore/photo-03.png\ta dog\n"
    (folder / "captions.tsv").write_text(captions)
    argv = ["embed", str(source), "--out", str(folder / "store"), "--model", tiny_model]
    assert main([*argv, "--captions", str(folder / "captions.tsv"), "--precision", "fp32"]) == 0
    assert main(["index", str(folder / "store")]) == 0
    return folder / "store"


@pytest.fixture(scope="session")
def photos_store(tmp_path_factory, photos, tiny_model):
    """An indexed store over the photos, made without Ray. No test changes it."""
    store = embed_plainly(photos, tmp_path_factory.mktemp("photos-store") / "store", tiny_model)
    build_index(store.root)
    return store.root


@pytest.fixture(scope="module")
def searcher(photos_store):
    with Searcher.open(photos_store, device="cpu") as found:
        yield found
