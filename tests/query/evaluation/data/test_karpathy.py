"""Karpathy's JSON: which images belong to a split, where they are found, and what is wrong with a file."""

import json

import pytest

from pipeline.errors import InputError
from tests.kit.data_sets import answers_of, keys_of, opened, write_karpathy

CAPTIONS = {"photo-02.jpg": ["two"], "more/photo-00.jpg": ["zero", "null"]}


def test_only_the_images_of_the_split_are_in_the_gallery(photos, tmp_path):
    others = [("photo-01.png", "train"), ("not-even-there.jpg", "val")]
    path = write_karpathy(tmp_path / "dataset.json", CAPTIONS, others=others)
    data = opened(tmp_path, images=photos, captions=path)
    assert keys_of(data) == ["more/photo-00.jpg", "photo-02.jpg"]
    assert answers_of(data) == {
        "two": {"photo-02.jpg": 1.0},
        "zero": {"more/photo-00.jpg": 1.0},
        "null": {"more/photo-00.jpg": 1.0},
    }


def test_another_split_can_be_chosen(photos, tmp_path):
    path = write_karpathy(tmp_path / "dataset.json", CAPTIONS, split="restval", others=[("photo-01.png", "test")])
    assert opened(tmp_path, images=photos, captions=path, split="restval").counts["num_queries"] == 3


@pytest.mark.parametrize("filepath", ["", "elsewhere/"], ids=["by name", "by name, in spite of its path"])
def test_an_image_is_found_by_its_name_in_any_folder(photos, tmp_path, filepath):
    path = write_karpathy(tmp_path / "dataset.json", {f"{filepath}photo-00.jpg": ["zero"]})
    assert keys_of(opened(tmp_path, images=photos, captions=path)) == ["more/photo-00.jpg"]


def test_an_image_at_the_named_path_comes_before_others_of_its_name(photos, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "x.jpg").write_bytes((photos / "photo-02.jpg").read_bytes())
    path = write_karpathy(tmp_path / "dataset.json", {"b/x.jpg": ["x"]})
    assert keys_of(opened(tmp_path, images=tmp_path / "images", captions=path)) == ["b/x.jpg"]
    path = write_karpathy(tmp_path / "dataset.json", {"x.jpg": ["x"]})
    with pytest.raises(InputError, match=r"dataset.json: images.0 'x.jpg' may mean 'a/x.jpg' or 'b/x.jpg'"):
        opened(tmp_path, images=tmp_path / "images", captions=path)


def test_missing_images_are_counted_and_the_first_is_named(photos, tmp_path):
    path = write_karpathy(tmp_path / "dataset.json", {**CAPTIONS, "gone/x.jpg": ["x"], "gone/y.jpg": ["y"]})
    with pytest.raises(InputError, match=r"dataset.json: 2 of 4 images of split 'test' are .*images.2 'gone/x.jpg'"):
        opened(tmp_path, images=photos, captions=path)


def test_an_empty_split_is_an_error_that_names_those_there_are(photos, tmp_path):
    path = write_karpathy(tmp_path / "dataset.json", CAPTIONS, others=[("a.jpg", "train")])
    with pytest.raises(InputError, match=r"dataset.json has no split 'val'; it has test \(2 images\), train \(1 "):
        opened(tmp_path, images=photos, captions=path, split="val")
    path.write_text('{"images": []}')
    with pytest.raises(InputError, match="has no split 'test'; it has no images"):
        opened(tmp_path, images=photos, captions=path)


def test_a_split_without_captions_is_an_error(photos, tmp_path):
    path = write_karpathy(tmp_path / "dataset.json", {"photo-02.jpg": []})
    with pytest.raises(InputError, match=r"no image of .* has a caption"):
        opened(tmp_path, images=photos, captions=path)


def test_an_image_named_twice_is_an_error(photos, tmp_path):
    path = write_karpathy(tmp_path / "dataset.json", {"more/photo-00.jpg": ["a"], "photo-00.jpg": ["b"]})
    with pytest.raises(InputError, match=r"images.0 and images.1 are both 'more/photo-00.jpg'"):
        opened(tmp_path, images=photos, captions=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', "dataset.json: Invalid JSON: EOF"),
        ('{"images": [{"filename": "\\ud800"}]}', "dataset.json: Invalid JSON: "),
        ("[]", "dataset.json: Input should be an object"),
        ('{"photos": []}', "dataset.json: images: Field required"),
        ('{"images": [{"split": "test", "sentences": []}]}', r"dataset.json: images\.0\.filename: Field required"),
        (
            json.dumps({"images": [{"filename": "photo-02.jpg", "split": "test", "sentences": [{"tokens": ["a"]}]}]}),
            r"dataset.json: images\.0\.sentences\.0\.raw: Field required",
        ),
        (
            json.dumps({"images": [{"filename": "photo-02.jpg", "split": "test", "sentences": [{"raw": " "}]}]}),
            r"dataset.json: images\.0\.sentences\.0\.raw is blank",
        ),
        (None, "cannot read captions file .*dataset.json: No such file"),
    ],
)
def test_a_bad_file_is_an_error_that_names_the_place(photos, tmp_path, content, message):
    path = tmp_path / "dataset.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        opened(tmp_path, images=photos, captions=path)
    assert "\n" not in str(caught.value)
