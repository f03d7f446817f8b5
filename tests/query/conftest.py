"""An indexed store made with the command line, for the tests of searching and measuring."""

import shutil

import pytest

from query.cli.main import main


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
