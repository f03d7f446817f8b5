"""Fake a store of given vectors, shard by shard, without a model."""

import numpy as np

from pipeline.model.spec import EncoderSpec, ModelSource, Preprocess
from pipeline.source.entry import ImageEntry, ImageResult, Source, Status
from pipeline.store.layout import Store
from pipeline.store.records import Shard
from pipeline.store.tombstones import create_tombstones
from tests.kit.fake_store import commit_fake, fake_record

SOURCE = Source(location="nowhere", format="folder")
ENTRY = ImageEntry("x", "file:///x", 0, 0)


def spec_of(dim, precision="fp16"):
    return EncoderSpec(
        source=ModelSource(model="scenes"),
        architecture={"embed_dim": dim},
        weights_sha256="a" * 64,
        text_weights_sha256="b" * 64,
        image_weights_sha256="c" * 64,
        embedding_dim=dim,
        precision=precision,
        preprocess=Preprocess(height=8, width=8, mean=(0, 0, 0), std=(1, 1, 1)),
        policy=None,
    )


def unit_vectors(num_rows, dim, seed=0, centers=30):
    """Vectors around some centres, as the images of a collection lie around its subjects."""
    rng = np.random.default_rng(seed)
    middles = np.random.default_rng(7).normal(size=(centers, dim))
    vectors = middles[rng.integers(0, centers, num_rows)] + 0.6 * rng.normal(size=(num_rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def vector_store(root, vectors, per_shard, precision="fp16", columns=None):
    """Make a finished store with these vectors. Ids have gaps between shards."""
    store = Store(root)
    store.create_folders()
    create_tombstones(store)
    store.begin(fake_record(spec_of(vectors.shape[1], precision), columns=columns or {}))
    add_vectors(store, vectors, per_shard)
    return store


def add_vectors(store, vectors, per_shard):
    """Let a store grow by these vectors. The id of row r of shard s is 2 * per_shard * s + r."""
    record = store.read_record()
    first = len(record.shards)
    starts = range(0, len(vectors), per_shard)
    shards = [
        Shard(
            ordinal=first + number,
            shard_id=f"id-{first + number}",
            first_id=2 * per_shard * (first + number),
            room=2 * per_shard,
            num_images=len(vectors[start : start + per_shard]),
        )
        for number, start in enumerate(starts)
    ]
    record = store.add_plan(record, SOURCE, [(shard, [ENTRY] * shard.num_images) for shard in shards])
    for shard, start in zip(shards, starts, strict=True):
        results = [
            ImageResult(
                key=f"{shard.ordinal}/{row}.jpg",
                uri=f"file:///{shard.ordinal}/{row}.jpg",
                status=Status.OK,
                caption=f"caption {row}",
                width=100 + row,
                height=200,
                extra={name: row for name in record.columns},
            )
            for row in range(shard.num_images)
        ]
        commit_fake(store, record, shard, results, vectors[start : start + per_shard])
    return record


def ids_of(num_rows, per_shard):
    """The ids of the rows of `vector_store`."""
    rows = np.arange(num_rows)
    return 2 * per_shard * (rows // per_shard) + rows % per_shard
