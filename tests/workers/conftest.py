"""Fixtures of the tests that embed with real workers."""

import json

import pytest

from pipeline.embedding import embed
from pipeline.settings.embed import EmbedSettings
from pipeline.workers.pool import WorkerPool
from tests.kit.reports import jpeg, write_tar


@pytest.fixture(scope="module")
def pool(ray_session):
    """One worker for all tests here, because starting one takes seconds."""
    pool = WorkerPool(1)
    yield pool
    pool.stop()


@pytest.fixture
def run(tmp_path, tiny_model, pool):
    """Embed a source into a store of this test; takes further settings by name."""

    def embed_source(source, on_tick=lambda tick: None, on_warning=lambda text: None, **settings):
        fixed = {"out": tmp_path / "store", "model": tiny_model, "precision": "fp32", "batch_size": 4}
        return embed(EmbedSettings(source=str(source), **(fixed | settings)), on_tick, pool, on_warning=on_warning)

    return embed_source


@pytest.fixture
def folder(tmp_path, make_image):
    """A folder of 6 images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(jpeg(make_image, number))
    return folder


@pytest.fixture
def tars(tmp_path, make_image):
    """Two tars of 5 and 3 images, with captions and licences."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for tar, numbers in enumerate((range(5), range(5, 8))):
        members = {}
        for number in numbers:
            members[f"{number:03d}.jpg"] = jpeg(make_image, number)
            members[f"{number:03d}.txt"] = f"picture {number}".encode()
            members[f"{number:03d}.json"] = json.dumps({"license": f"by-{number}"}).encode()
        write_tar(folder / f"{tar:05d}.tar", members)
    return folder
