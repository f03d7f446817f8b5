"""`--check` finds every flipped byte, foreign rows and answers that are wrong."""

import numpy as np
import pytest

from indexer.build import build_index
from indexer.check import check_index
from indexer.manifest import MANIFEST_FILE, hash_file, read_manifest
from indexer.settings import IndexSettings
from pipeline.errors import StoreError
from pipeline.store.view import StoreView
from tests.kit.vector_store import add_vectors, unit_vectors


@pytest.fixture
def indexed(store):
    build_index(IndexSettings(store=store.root, recipe="IVF32,SQ8", proof=False))
    return store


def findings(store):
    return check_index(StoreView.open(store.root)).findings


def test_a_sound_index_has_no_findings(indexed):
    report = check_index(StoreView.open(indexed.root))
    assert report.findings == []
    assert (report.num_rows, report.num_blocks) == (3_000, 4)
    assert report.sample_recall > 0.9


@pytest.mark.parametrize("pattern", ["image-*.index", "*.vectors", "*.ids", "*.arrows"])
def test_a_flipped_bit_in_any_file_is_found(indexed, pattern):
    [path] = indexed.index_dir.glob(pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    [finding] = findings(indexed)
    assert finding == f"{path}: block 0 is damaged; run `clipsieve index --rebuild`"


@pytest.mark.parametrize("pattern", ["image-*.index", "*.vectors", "*.ids", "*.arrows"])
def test_a_truncated_file_is_found(indexed, pattern):
    [path] = indexed.index_dir.glob(pattern)
    path.write_bytes(path.read_bytes()[:-5])
    [finding] = findings(indexed)
    assert finding.startswith(str(path))
    assert "rebuild the index" in finding


def rewrite(store, pattern, change):
    """Change a file and its hashes, as a fault of the build would."""
    manifest = read_manifest(StoreView.open(store.root))
    [path] = store.index_dir.glob(pattern)
    change(path)
    files = dict(manifest.files) | {path.name: hash_file(path)}
    manifest.model_copy(update={"files": files}).write(store.index_dir)


def test_rows_that_are_not_those_of_the_store_are_found(indexed):
    def shift(path):
        path.write_bytes((np.fromfile(path, np.int64) + 1).tobytes())

    rewrite(indexed, "*.ids", shift)
    assert findings(indexed)[0] == "6 rows of the store are not in the index, 6 of its rows are not in the store"


def test_vectors_that_are_not_those_of_the_store_are_found(indexed):
    def swap(path):
        vectors = np.fromfile(path, np.float16).reshape(3_000, -1)
        path.write_bytes(vectors[::-1].tobytes())

    rewrite(indexed, "*.vectors", swap)
    assert any("the vectors of shard" in finding for finding in findings(indexed))
    assert any("as queries find" in finding for finding in findings(indexed))


def test_an_index_older_than_its_store_is_found(indexed):
    add_vectors(indexed, unit_vectors(10, 32, seed=3), 500)
    assert any("is older than the store" in finding for finding in findings(indexed))


def test_an_earlier_format_has_nothing_to_check(indexed):
    (indexed.index_dir / MANIFEST_FILE).write_text('{"schema_version": 1}')
    with pytest.raises(StoreError, match="has an earlier format"):
        check_index(StoreView.open(indexed.root))
