"""The index of a store: exact, checked by size, and never used with another store or encoder."""

import resource
import signal

import numpy as np
import pytest

from indexer.build import build_index
from indexer.manifest import MANIFEST_FILE, read_manifest
from indexer.opening import open_index
from indexer.settings import IndexSettings
from pipeline.errors import StoreError, UnfinishedStore
from pipeline.model.spec import EncoderSpec, ModelSource, Preprocess
from pipeline.source.entry import ImageEntry, ImageResult, Source, Status
from pipeline.store.layout import Store
from pipeline.store.parts import embeddings_of, read_part
from pipeline.store.records import Shard
from pipeline.store.tombstones import DELETED, add_tombstones, create_tombstones
from pipeline.store.view import StoreView
from tests.kit.fake_store import commit_fake, fake_record

SPEC = EncoderSpec(
    source=ModelSource(model="scenes"),
    architecture={"embed_dim": 8},
    weights_sha256="a" * 64,
    text_weights_sha256="b" * 64,
    image_weights_sha256="c" * 64,
    embedding_dim=8,
    precision="fp32",
    preprocess=Preprocess(height=8, width=8, mean=(0, 0, 0), std=(1, 1, 1)),
    policy=None,
)


@pytest.fixture
def make_store(tmp_path):
    """Makes a finished store of random unit vectors. The second row of each shard is a failure."""

    def make(num_shards, rows):
        store = Store(tmp_path / "store")
        store.create_folders()
        shards = [
            Shard(ordinal=n, shard_id=f"id-{n}", first_id=100 * n, room=rows, num_images=rows)
            for n in range(num_shards)
        ]
        entry = ImageEntry("x", "file:///x", 0, 0)
        source = Source(location="nowhere", format="folder")
        create_tombstones(store)
        record = store.begin(fake_record(SPEC))
        record = store.add_plan(record, source, [(shard, [entry] * rows) for shard in shards])
        rng = np.random.default_rng(0)
        for shard in shards:
            results = [
                ImageResult(key=f"{shard.ordinal}/{row}.jpg", uri="file:///x", status=Status.OK)
                if row != 1
                else ImageResult(key=f"{shard.ordinal}/{row}.jpg", uri="file:///x", status=Status.UNREADABLE, error="x")
                for row in range(rows)
            ]
            vectors = rng.normal(size=(rows, 8))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            commit_fake(store, record, shard, results, vectors)
        return store

    return make


@pytest.fixture
def indexed(make_store):
    """A finished store of 3 shards with one failed row each, indexed."""
    store = make_store(num_shards=3, rows=5)
    build_index(IndexSettings(store=store.root))
    return store


def _all_rows(store):
    parts = [embeddings_of(read_part(store.part_path(n))) for n in range(len(store.read_record().shards))]
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([vectors for _, vectors in parts])


def test_search_is_exact_and_returns_row_ids(indexed):
    ids, vectors = _all_rows(indexed)
    queries = np.random.default_rng(3).normal(size=(4, vectors.shape[1])).astype(np.float32)
    scores, found = open_index(StoreView.open(indexed.root)).search(queries, 6)
    exact = queries @ vectors.T
    order = np.argsort(-exact, axis=1)[:, :6]
    assert (found == ids[order]).all()
    np.testing.assert_allclose(scores, np.take_along_axis(exact, order, axis=1), rtol=1e-5)


@pytest.mark.gpu
def test_a_gpu_finds_the_same_as_the_cpu(indexed):
    queries = np.random.default_rng(3).normal(size=(4, 8)).astype(np.float32)
    view = StoreView.open(indexed.root)
    on_cpu, on_gpu = (open_index(view, device=device) for device in ("cpu", "cuda"))
    assert on_gpu.device == "gpu"
    for found, expected in zip(on_gpu.search(queries, 6), on_cpu.search(queries, 6), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_failed_rows_are_not_in_the_index(indexed):
    ids, _ = _all_rows(indexed)
    assert len(ids) == 12
    _, found = open_index(StoreView.open(indexed.root)).search(np.ones((1, 8), np.float32), 100)
    assert sorted(found[0]) == sorted(ids)  # k is limited to the number of vectors, so there is no -1


def test_manifest_describes_the_index(indexed):
    manifest = read_manifest(StoreView.open(indexed.root))
    assert manifest.fingerprint == SPEC.fingerprint
    assert (manifest.num_vectors, manifest.metric, manifest.recipe) == (12, "inner_product", "Flat")
    assert manifest.num_bytes == (indexed.index_dir / manifest.index_file).stat().st_size
    assert {path.name for path in indexed.index_dir.iterdir()} == {MANIFEST_FILE, *manifest.files}


def test_unfinished_store_is_refused_with_counts(make_store):
    store = make_store(num_shards=3, rows=5)
    store.marker_path(1).unlink()
    with pytest.raises(UnfinishedStore, match="2 of 3 shards, 10 of 15 images"):
        build_index(IndexSettings(store=store.root))
    assert build_index(IndexSettings(store=store.root, partial=True)).num_vectors == 8


def test_index_older_than_its_store_is_refused(make_store):
    store = make_store(num_shards=3, rows=5)
    kept = store.marker_path(1).read_bytes()
    store.marker_path(1).unlink()
    build_index(IndexSettings(store=store.root, partial=True))
    store.marker_path(1).write_bytes(kept)
    with pytest.raises(UnfinishedStore, match="covers 2 shards and 8 images, the store has 3 shards and 12 images"):
        open_index(StoreView.open(store.root))
    assert open_index(StoreView.open(store.root), partial=True).num_rows == 8


def test_flipped_byte_in_a_part_is_found(make_store):
    store = make_store(num_shards=2, rows=5)
    data = bytearray(store.part_path(1).read_bytes())
    data[len(data) // 2] ^= 1
    store.part_path(1).write_bytes(data)
    with pytest.raises(StoreError, match=r"part-00001\.parquet is damaged"):
        build_index(IndexSettings(store=store.root))
    assert not (store.index_dir / MANIFEST_FILE).exists()


def test_index_that_cannot_be_written_leaves_the_old_one(indexed):
    before = {path.name: path.read_bytes() for path in indexed.index_dir.iterdir()}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes fail instead of ending the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(StoreError, match="cannot write"):
            build_index(IndexSettings(store=indexed.root, rebuild=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    after = {path.name: path.read_bytes() for path in indexed.index_dir.iterdir() if path.is_file()}
    assert before.items() <= after.items()
    assert open_index(StoreView.open(indexed.root)).num_rows == 12
    build_index(IndexSettings(store=indexed.root, rebuild=True))
    assert not {path.name for path in indexed.index_dir.iterdir()} & set(before) - {MANIFEST_FILE}


def test_damaged_index_is_refused(indexed):
    view = StoreView.open(indexed.root)
    path = indexed.index_dir / read_manifest(view).index_file
    data = path.read_bytes()
    path.write_bytes(data[:-7])
    with pytest.raises(StoreError, match="rebuild the index"):
        open_index(view)
    path.write_bytes(bytes(len(data)))
    with pytest.raises(StoreError, match="cannot read the index"):
        open_index(view)


def test_index_of_another_encoder_is_refused(indexed):
    manifest = read_manifest(StoreView.open(indexed.root))
    manifest.model_copy(update={"fingerprint": "0" * 33}).write(indexed.index_dir)
    with pytest.raises(StoreError, match="is from encoder 0000"):
        open_index(StoreView.open(indexed.root))


def test_a_manifest_with_a_flipped_byte_or_of_a_newer_version_is_refused(indexed):
    path = indexed.index_dir / MANIFEST_FILE
    text = path.read_text()
    path.write_text(text.replace("inner_product", "inner_Product"))
    with pytest.raises(StoreError, match="its bytes do not match its seal"):
        open_index(StoreView.open(indexed.root))
    path.write_text(text.replace('"schema_version": 2', '"schema_version": 3'))
    for use in (
        lambda: open_index(StoreView.open(indexed.root)),
        lambda: build_index(IndexSettings(store=indexed.root)),
    ):
        with pytest.raises(StoreError, match="has schema version 3, but this version of clipsieve reads 2"):
            use()
    assert build_index(IndexSettings(store=indexed.root, rebuild=True)).action == "built"


def test_a_missing_store_or_index_says_what_to_run(tmp_path, make_store):
    with pytest.raises(StoreError, match="clipsieve embed"):
        build_index(IndexSettings(store=tmp_path))
    store = make_store(num_shards=1, rows=5)
    with pytest.raises(StoreError, match="clipsieve index"):
        open_index(StoreView.open(store.root))


# --- deleted rows


def test_deleted_rows_are_left_out_of_a_new_index(make_store):
    store = make_store(num_shards=3, rows=5)
    add_tombstones(store, [0, 104], DELETED)
    assert build_index(IndexSettings(store=store.root)).num_vectors == 10
    _, found = open_index(StoreView.open(store.root)).search(np.ones((1, 8), np.float32), 100)
    assert not {0, 104} & set(found[0])


def test_progress_is_reported_after_each_part(make_store):
    reports = []
    build_index(IndexSettings(store=make_store(num_shards=3, rows=5).root), on_step=lambda *step: reports.append(step))
    assert [step for step in reports if step[0] == "rows"] == [("rows", 4, 12), ("rows", 8, 12), ("rows", 12, 12)]


def test_an_index_that_cannot_be_written_is_found_before_the_work(make_store):
    store = make_store(num_shards=1, rows=5)
    store.index_dir.write_text("in the way")
    reports = []
    with pytest.raises(StoreError, match=r"cannot write the index .*/index: Not a directory; make the store writable"):
        build_index(IndexSettings(store=store.root), on_step=lambda *report: reports.append(report))
    assert reports == []
