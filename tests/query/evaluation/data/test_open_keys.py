"""Which keys of a data set go together, and drawn scenes."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.pixels.decode import decode_batch
from query.evaluation.data.open import open_data
from query.evaluation.grid.keys import DataKeys
from tests.kit.data_sets import keys_of, opened
from tests.kit.sources import PREPROCESS

HERE = Path("here")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "expected exactly one of images, webdataset, classes, store, scenes; found none of them"),
        ({"captions": HERE}, "found none of them"),
        ({"grades": HERE}, "found none of them"),
        ({"images": HERE, "captions": HERE, "store": HERE}, "found images and store"),
        ({"classes": HERE, "webdataset": HERE, "scenes": 20}, "found webdataset and classes and scenes"),
        ({"images": HERE}, "images need captions or grades; add one of these"),
        ({"webdataset": HERE, "captions": HERE}, "captions goes with images or store, not with webdataset"),
        ({"scenes": 20, "captions": HERE}, "captions goes with images or store, not with scenes"),
        (
            {"images": HERE, "captions": HERE, "templates": HERE},
            "templates goes with classes or webdataset, not with i",
        ),
        ({"classes": HERE, "grades": HERE}, "grades goes with images or store or .*, not with classes"),
    ],
)
def test_keys_that_do_not_go_together_are_an_error_that_names_them(keys, message):
    with pytest.raises(ValidationError, match=message):
        DataKeys(name="mine", **keys)


def test_scenes_are_drawn_once_with_a_caption_each(tmp_path):
    data = opened(tmp_path, scenes=20)
    assert (data.counts["num_images"], data.counts["num_queries"]) == (20, 20)
    assert data.location == "scenes/test"
    assert decode_batch(data.entries, PREPROCESS).is_ok_B.all()
    assert opened(tmp_path, scenes=20).entries == data.entries  # and not a later time of the files
    assert keys_of(opened(tmp_path, scenes=24))[:20] == keys_of(data)


def test_scenes_that_were_not_all_drawn_are_drawn_again(tmp_path):
    whole = opened(tmp_path, scenes=20)
    captions = next(tmp_path.rglob("captions.tsv"))
    captions.write_bytes(captions.read_bytes()[:-5])
    next(tmp_path.rglob("00019.jpg")).unlink()
    assert opened(tmp_path, scenes=20).sha256 == whole.sha256


def test_splits_of_scenes_differ_and_unknown_ones_are_named(tmp_path):
    assert opened(tmp_path, scenes=20, split="validation").sha256 != opened(tmp_path, scenes=20).sha256
    with pytest.raises(InputError, match="scenes have no split 'val'; they have train, validation, test"):
        opened(tmp_path, scenes=20, split="val")


@pytest.fixture(scope="module")
def flickr8k(shared):
    folder = shared / "data" / "flickr8k-test"
    return {"images": folder, "captions": folder / "captions.tsv"}


def test_flickr8k_has_its_official_split(flickr8k, tmp_path):
    data = open_data(DataKeys(name="flickr8k", **flickr8k), tmp_path)
    assert data.sha256 == "36370ad742e1598a23c61514a5f508c1ecd9e817217602cca41cd250098297d6"
    assert data.counts == {
        "num_images": 1000, "num_own": 1000, "num_distractors": 0, "num_without_query": 0, "num_queries": 5000,
        "num_left_out": 0,
    }  # fmt: skip


def test_the_training_photographs_of_flickr8k_enlarge_the_gallery(flickr8k, shared, tmp_path):
    keys = DataKeys(name="flickr8k", **flickr8k, distractors=(shared / "data" / "flickr8k-train",))
    data = open_data(keys, tmp_path)
    assert (len(data.entries), data.num_own, data.counts["num_distractors"]) == (7000, 1000, 6000)
    assert len(set(keys_of(data))) == 7000
