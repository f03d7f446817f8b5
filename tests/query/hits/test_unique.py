"""Near-duplicates: real copies of pictures, as the built-in model sees them."""

import io

import numpy as np
import pytest

from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.spec import ModelSource
from pipeline.pixels.decode import decode_batch
from pipeline.scenes.collection import FAMILY_SIZE, draw, make_scene
from pipeline.source.entry import ImageEntry
from query import Searcher
from query.cli.search import print_hits
from query.hits.unique import near_duplicates
from tests.kit.vector_store import vector_store

NUM_SCENES = 6


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A store of drawn scenes, each of a family of its own, and a copy of each as a JPEG."""
    encoder = Encoder(load_model(ModelSource(model="scenes"), "fp32", "cpu"), policy=None)
    scenes = [draw(make_scene("test", FAMILY_SIZE * number)) for number in range(NUM_SCENES)]
    files = [saved(scene, "PNG") for scene in scenes] + [saved(scene, "JPEG") for scene in scenes]
    entries = [ImageEntry("x", "file:///x", len(file), 0, data=file) for file in files]
    vectors = encoder.encode(decode_batch(entries, encoder.spec.preprocess).pixels)
    store = vector_store(tmp_path_factory.mktemp("copies") / "store", vectors, NUM_SCENES, precision="fp32")
    build_index(IndexSettings(store=store.root))
    with Searcher.open(store.root, device="cpu") as searcher:
        yield searcher, vectors[0]


def saved(image, kind):
    file = io.BytesIO()
    image.save(file, kind, quality=60)
    return file.getvalue()


def scene_of(hit):
    return hit.key.partition("/")[2]  # keys are shard/row: the pictures are in one shard, their copies in the next


def test_copies_are_left_out_and_counted(copies, capsys):
    searcher, vector = copies
    everything = searcher.search(vector=vector, k=2 * NUM_SCENES)
    assert len(everything) == 2 * NUM_SCENES
    hits = searcher.search(vector=vector, k=NUM_SCENES, unique=True)
    assert len({scene_of(hit) for hit in hits}) == len(hits) == NUM_SCENES
    assert {hit.duplicates for hit in hits} == {1}
    firsts = {}
    for hit in everything:
        firsts.setdefault(scene_of(hit), hit.key)
    assert [hit.key for hit in hits] == list(firsts.values())  # of each pair, the better one
    assert "6 near-duplicates of hits are left out (cosine of at least 0.9)" in hits.notes
    print_hits("a picture", hits)
    assert "duplicates" in capsys.readouterr().out


def test_a_few_hits_without_copies_among_them(copies):
    searcher, vector = copies
    hits = searcher.search(vector=vector, k=3, unique=True)
    assert len({scene_of(hit) for hit in hits}) == len(hits) == 3
    assert any("near-duplicates of hits are left out" in note for note in hits.notes)


def test_no_picture_is_hidden_by_a_threshold_above_all_cosines(copies):
    searcher, vector = copies
    hits = searcher.search(vector=vector, k=2 * NUM_SCENES, unique=1.0)
    assert len(hits) == 2 * NUM_SCENES
    assert {hit.duplicates for hit in hits} == {0}


def test_hits_that_are_fewer_because_the_others_are_copies(copies):
    searcher, vector = copies
    hits = searcher.search(vector=vector, k=9, unique=True)
    assert "6 of 9 hits: no other image differs enough from the hits" in hits.notes


def test_a_chain_of_similar_images_does_not_collapse_into_one():
    angles = np.radians([0, 15, 30, 45])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    ids, is_hit = np.arange(4)[None], np.ones((1, 4), bool)
    repeated = near_duplicates(ids, is_hit, 0.95, lambda ids: vectors[ids])
    assert repeated.tolist() == [[-1, 0, -1, 2]]
    is_hit[0, 0] = False
    assert near_duplicates(ids, is_hit, 0.95, lambda ids: vectors[ids]).tolist() == [[-1, -1, 1, -1]]
