"""Folders of images with captions, as TSV or as Karpathy's JSON: the queries, the rule of the first ones, the hash."""

import hashlib
import json

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.pixels.decode import decode_batch
from tests.kit.data_sets import answers_of, keys_of, opened, write_karpathy, write_tsv
from tests.kit.sources import PREPROCESS

CAPTIONS = {
    "photo-02.jpg": ["two b", "two a"],
    "more/photo-00.jpg": ["zero"],
    "photo-01.png": [f"one {n}" for n in range(7)],
}


@pytest.fixture
def tsv(tmp_path):
    return write_tsv(tmp_path / "captions.tsv", CAPTIONS)


def test_each_caption_is_a_query_that_its_own_image_answers(photos, tsv, tmp_path):
    data = opened(tmp_path, images=photos, captions=tsv, captions_per_image=None)
    assert data.kind == "captions"
    assert keys_of(data) == sorted(keys_of(data))
    assert answers_of(data) == {text: {key: 1.0} for key, texts in CAPTIONS.items() for text in texts}
    assert data.prompts == [[title] for title in data.titles]
    assert data.pairs_P2.dtype == np.int64
    assert data.grades_P.dtype == np.float32
    assert data.pairs_P2.tolist() == sorted(data.pairs_P2.tolist())


def test_queries_are_in_the_order_of_images_and_then_of_the_file(photos, tsv, tmp_path):
    data = opened(tmp_path, images=photos, captions=tsv)
    assert data.titles == ["zero", *(f"one {n}" for n in range(5)), "two b", "two a"]
    assert data.clusters_Q.tolist() == [keys_of(data).index(key) for key in sorted(CAPTIONS) for _ in CAPTIONS[key][:5]]


def test_only_the_first_captions_are_queries_and_the_others_are_counted(photos, tsv, tmp_path):
    data = opened(tmp_path, images=photos, captions=tsv)
    assert data.counts == {
        "num_images": 12, "num_own": 12, "num_distractors": 0, "num_without_query": 9, "num_queries": 8,
        "num_left_out": 2,
    }  # fmt: skip
    assert opened(tmp_path, images=photos, captions=tsv, captions_per_image=1).counts["num_left_out"] == 7
    assert opened(tmp_path, images=photos, captions=tsv, captions_per_image=None).counts["num_left_out"] == 0


def test_the_images_can_be_decoded(photos, tsv, tmp_path):
    assert decode_batch(opened(tmp_path, images=photos, captions=tsv).entries, PREPROCESS).is_ok_B.all()


def test_a_reader_can_compute_the_hash_from_the_files(photos, tsv, tmp_path):
    keys = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    lines = [line.split("\t") for line in tsv.read_text().splitlines()]
    queries = [(place, text) for place, key in enumerate(keys) for text in [t for k, t in lines if k == key][:5]]
    pairs = [[number, place] for number, (place, _) in enumerate(queries)]
    text = "".join(
        json.dumps(value, ensure_ascii=False) + "\n"
        for value in (keys, [[text] for _, text in queries], pairs, [1.0] * len(queries), [])
    )
    data = opened(tmp_path, images=photos, captions=tsv)
    assert data.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_the_hash_is_the_same_in_another_place_and_for_another_order_of_images(photos, tsv, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(photos)
    shuffled = write_tsv(tmp_path / "shuffled.tsv", dict(reversed(CAPTIONS.items())))
    first = opened(tmp_path, images=photos, captions=tsv)
    assert opened(tmp_path, images=elsewhere, captions=shuffled).sha256 == first.sha256


@pytest.mark.parametrize("change", ["a caption", "the order of captions", "a key", "one caption less", "a distractor"])
def test_the_hash_differs_for_another_split(photos, tsv, tmp_path, change):
    other, more = json.loads(json.dumps(CAPTIONS)), {}
    if change == "a caption":
        other["photo-02.jpg"][0] = "two c"
    elif change == "the order of captions":
        other["photo-02.jpg"].reverse()
    elif change == "a key":
        other["photo-04.jpg"] = other.pop("photo-02.jpg")
    elif change == "one caption less":
        other["photo-02.jpg"].pop()
    else:
        (tmp_path / "far").mkdir()
        (tmp_path / "far" / "a.jpg").write_bytes((photos / "photo-02.jpg").read_bytes())
        more = {"distractors": [tmp_path / "far"]}
    changed = opened(tmp_path, images=photos, captions=write_tsv(tmp_path / "other.tsv", other), **more)
    assert changed.sha256 != opened(tmp_path, images=photos, captions=tsv).sha256


def test_the_same_split_has_the_same_hash_as_tsv_and_as_json(photos, tmp_path):
    captions = {
        path.relative_to(photos).as_posix(): [f"  {path.name} {n}\n" for n in range(6)] for path in photos.rglob("*.*")
    }
    tsv = write_tsv(
        tmp_path / "captions.tsv", {key: [text.strip() for text in texts] for key, texts in captions.items()}
    )
    karpathy = write_karpathy(tmp_path / "dataset.json", captions)
    one, other = (opened(tmp_path, images=photos, captions=path) for path in (tsv, karpathy))
    assert one.sha256 == other.sha256
    assert one.counts == other.counts
    assert one.titles == other.titles


def test_keys_that_name_an_image_in_another_way_are_understood(photos, tsv, tmp_path):
    loose = {f"./{key}".replace("photo", "PHOTO"): texts for key, texts in CAPTIONS.items()}
    data = opened(tmp_path, images=photos, captions=write_tsv(tmp_path / "loose.tsv", loose))
    assert data.sha256 == opened(tmp_path, images=photos, captions=tsv).sha256


def test_a_caption_of_a_missing_image_is_an_error_with_file_and_key(photos, tmp_path):
    path = write_tsv(tmp_path / "captions.tsv", {"photo-02.jpg": ["a"], "gone.jpg": ["b"]})
    expected = r"^data set 'mine': captions file \S+captions.tsv, line [0-9]+: 1 captioned .*'gone.jpg'"
    with pytest.raises(InputError, match=expected):
        opened(tmp_path, images=photos, captions=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"photo-02.jpg\ttwo\nphoto-01.png no tab\n", "captions file .*, line 2: expected `key TAB caption`"),
        (b"photo-02.jpg\t  \n", "captions file .*, line 1: expected `key TAB caption`"),
        (b"", "captions file .* is empty"),
        (b"\xff\xfe\xff", "captions file .* is not UTF-16"),
        (None, "cannot read captions file .*: No such file"),
    ],
)
def test_a_bad_tsv_is_an_error_on_one_line(photos, tmp_path, content, message):
    path = tmp_path / "captions.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        opened(tmp_path, images=photos, captions=path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("captions.tsv") == 1


def test_a_missing_folder_of_images_is_an_error(tmp_path, tsv):
    with pytest.raises(InputError, match=r"data set 'mine': source .*nowhere does not exist"):
        opened(tmp_path, images=tmp_path / "nowhere", captions=tsv)
