"""A service over two stores of the same photos, shared by the tests that do not change it."""

import pytest

from indexer import build_index
from tests.kit.plain_embed import embed_plainly
from tests.kit.service import running


@pytest.fixture(scope="session")
def second_store(tmp_path_factory, photos, tiny_model):
    """The photos again, in another store. No test changes it."""
    store = embed_plainly(photos, tmp_path_factory.mktemp("second-store") / "again", tiny_model)
    build_index(store.root)
    return store.root


@pytest.fixture(scope="session")
def service(photos_store, second_store):
    """A running service over two stores."""
    with running(photos_store, second_store, flags=("--device", "cpu", "--warm-images")) as found:
        yield found
