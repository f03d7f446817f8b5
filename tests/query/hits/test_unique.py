"""Near-duplicates: real copies of pictures, as the built-in model sees them."""

import numpy as np
import pytest

from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.scenes.collection import FAMILY_SIZE, draw, make_scene
from query import Searcher
from query.cli.search import print_hits
from query.hits.unique import near_duplicates
from tests.kit.plain_embed import embed_plainly

NUM_SCENES = 6


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A store of drawn scenes, each of a family of its own, with a copy of each at a lower quality."""
    folder = tmp_path_factory.mktemp("copies")
    for number in range(NUM_SCENES):
        picture = draw(make_scene("test", FAMILY_SIZE * number), image_size=64)
        (folder / "pictures").mkdir(exist_ok=True)
        picture.save(folder / "pictures" / f"{number}.png")
        picture.save(folder / "pictures" / f"{number}-copy.jpg", quality=60)
    store = embed_plainly(folder / "pictures", folder / "store", "scenes")
    build_index(IndexSettings(store=store.root))
    with Searcher.open(store.root, device="cpu") as searcher:
        yield searcher


def scene_of(hit):
    return hit.key.split(".")[0].removesuffix("-copy")


def test_copies_are_left_out_and_counted(copies, capsys):
    everything = copies.search("a red square", k=2 * NUM_SCENES)
    assert len(everything) == 2 * NUM_SCENES
    hits = copies.search("a red square", k=NUM_SCENES, unique=True)
    assert len({scene_of(hit) for hit in hits}) == len(hits) == NUM_SCENES
    assert {hit.duplicates for hit in hits} == {1}
    firsts = {}
    for hit in everything:
        firsts.setdefault(scene_of(hit), hit.key)
    assert [hit.key for hit in hits] == list(firsts.values())  # of each pair, the better one
    assert hits.notes == ("6 near-duplicates of hits are left out (cosine of at least 0.95)",)
    print_hits("a red square", hits)
    assert "duplicates" in capsys.readouterr().out


def test_a_few_hits_without_copies_among_them(copies):
    hits = copies.search("a red square", k=3, unique=True)
    assert len({scene_of(hit) for hit in hits}) == len(hits) == 3
    assert hits.notes[0].endswith("near-duplicates of hits are left out (cosine of at least 0.95)")


def test_no_picture_is_hidden_by_a_threshold_above_all_cosines(copies):
    hits = copies.search("a red square", k=2 * NUM_SCENES, unique=1.0)
    assert len(hits) == 2 * NUM_SCENES
    assert {hit.duplicates for hit in hits} == {0}


def test_hits_that_are_fewer_because_the_others_are_copies(copies):
    hits = copies.search("a red square", k=9, unique=True)
    assert hits.notes[0] == "6 of 9 hits: no other image differs enough from the hits"


def test_a_chain_of_similar_images_does_not_collapse_into_one():
    angles = np.radians([0, 15, 30, 45])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    ids, is_hit = np.arange(4)[None], np.ones((1, 4), bool)
    repeated = near_duplicates(ids, is_hit, 0.95, lambda ids: vectors[ids])
    assert repeated.tolist() == [[-1, 0, -1, 2]]
    is_hit[0, 0] = False
    assert near_duplicates(ids, is_hit, 0.95, lambda ids: vectors[ids]).tolist() == [[-1, -1, 1, -1]]
