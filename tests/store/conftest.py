"""A store with every kind of file, for `verify` and `resample`."""

import shutil

import pytest
import torch

from pipeline.compact import compact
from pipeline.durable.seal import write_sealed_json
from pipeline.settings.store import CompactSettings
from pipeline.store.layout import Store
from pipeline.store.tombstones import DELETED, add_tombstones
from tests.kit.plain_embed import embed_plainly


@pytest.fixture(scope="session")
def collection(tmp_path_factory, photos, make_image):
    """12 good photos and 3 bad ones."""
    folder = shutil.copytree(photos, tmp_path_factory.mktemp("collection") / "photos")
    (folder / "a text.jpg").write_text("no image")
    (folder / "dangling.jpg").symlink_to("nowhere")
    make_image(100, 100).save(folder / "large.png")
    return folder


@pytest.fixture(scope="session")
def original(tmp_path_factory, collection, tiny_model):
    """A store of two plans and four shards, with every kind of file. Read-only: use `store` to change it."""
    root = tmp_path_factory.mktemp("original") / "store"
    embed_plainly(collection, root, tiny_model)
    more = tmp_path_factory.mktemp("more")
    shutil.copy(collection / "photo-01.png", more / "later.png")
    store = embed_plainly(more, root, tiny_model)
    write_sealed_json(root / "stats.json", {"store": {}})
    add_tombstones(store, [1, 3], DELETED, {1: "more/photo-00.jpg"})
    compact(CompactSettings(store=root))
    add_tombstones(store, [7], DELETED)
    return store


@pytest.fixture
def store(original, tmp_path):
    shutil.copytree(original.root, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def keep_threads():
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)
