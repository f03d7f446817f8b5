"""The images of a data set: samples of its own, distractors, and the data set without them."""

import shutil

import numpy as np
import pytest

from pipeline.errors import InputError
from query.evaluation.data.gallery import own
from tests.kit.data_sets import answers_of, keys_of, opened, write_karpathy, write_tsv


@pytest.fixture
def tsv(tmp_path, photos):
    keys = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))[:10]
    return write_tsv(tmp_path / "captions.tsv", {key: [f"{key} {n}" for n in range(2)] for key in keys})


@pytest.fixture
def far(tmp_path, photos):
    """A folder with names that the photos have as well."""
    return shutil.copytree(photos, tmp_path / "far")


def test_a_sample_keeps_images_with_their_queries(photos, tsv, tmp_path):
    whole = opened(tmp_path, images=photos, captions=tsv)
    data = opened(tmp_path, images=photos, captions=tsv, num_images=4)
    assert len(data.entries) == data.num_own == 4
    assert keys_of(data) == sorted(keys_of(data))
    assert answers_of(data) == {
        text: keys for text, keys in answers_of(whole).items() if set(keys) <= set(keys_of(data))
    }
    assert len(data.titles) == 8
    assert data.counts["num_not_sampled"] == 8
    assert data.counts["num_without_query"] == 0


def test_the_seed_decides_the_sample(photos, tsv, tmp_path):
    found = {}
    for seed in (1, 2, 3):
        first, again = (opened(tmp_path, images=photos, captions=tsv, num_images=4, seed=seed) for _ in range(2))
        assert keys_of(first) == keys_of(again)
        found[seed] = first.sha256
    assert len(set(found.values())) == 3


def test_a_sample_that_is_larger_than_the_data_set_is_all_of_it(photos, tsv, tmp_path):
    whole = opened(tmp_path, images=photos, captions=tsv)
    assert opened(tmp_path, images=photos, captions=tsv, num_images=12).sha256 == whole.sha256
    data = opened(tmp_path, images=photos, captions=tsv, num_images=11)  # ten have captions
    assert (data.counts["num_images"], data.counts["num_not_sampled"]) == (10, 2)


def test_a_sample_of_class_folders_keeps_all_classes(photos, tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        shutil.copy(photos / "photo-02.jpg", tmp_path / "classes" / name)
    data = opened(tmp_path, classes=tmp_path / "classes", num_images=2)
    assert data.titles == ["a", "b", "c"]
    assert sorted(len(images) for images in answers_of(data).values()) == [0, 1, 1]
    assert data.pairs_P2[:, 1].tolist() == [0, 1]


def test_a_sample_of_graded_captions_keeps_the_grades_of_its_images(photos, tmp_path):
    (tmp_path / "g.tsv").write_text("a\tphoto-01.png\t1\na\tphoto-02.jpg\t2\nb\tphoto-04.jpg\t3\n")
    grades = {"photo-01.png": 1.0, "photo-02.jpg": 2.0, "photo-04.jpg": 3.0}
    for seed in range(6):
        data = opened(tmp_path, images=photos, grades=tmp_path / "g.tsv", num_images=1, seed=seed)
        [key] = keys_of(data)
        assert answers_of(data) == {"b" if key == "photo-04.jpg" else "a": {key: grades[key]}}


def test_distractors_come_last_and_answer_nothing(photos, tsv, far, tmp_path):
    plain = opened(tmp_path, images=photos, captions=tsv)
    data = opened(tmp_path, images=photos, captions=tsv, distractors=[far])
    assert keys_of(data)[:12] == keys_of(plain)
    assert keys_of(data)[12:] == [f"distractors-1/{key}" for key in keys_of(plain)]
    assert len(set(keys_of(data))) == 24
    assert data.counts == plain.counts | {"num_images": 24, "num_distractors": 12}
    assert data.num_own == 12
    np.testing.assert_array_equal(data.pairs_P2, plain.pairs_P2)


def test_a_data_set_without_its_distractors_is_the_plain_one(photos, tsv, far, tmp_path):
    plain = opened(tmp_path, images=photos, captions=tsv)
    data = own(opened(tmp_path, images=photos, captions=tsv, distractors=[far]))
    assert data.sha256 == plain.sha256
    assert data.counts == plain.counts
    assert keys_of(data) == keys_of(plain)
    assert own(plain).sha256 == plain.sha256


def test_folders_with_the_same_names_are_kept_apart(photos, tsv, far, tmp_path):
    second = shutil.copytree(far, tmp_path / "second" / "far")
    data = opened(tmp_path, images=photos, captions=tsv, distractors=[far, second])
    assert len(set(keys_of(data))) == len(data.entries) == 36


def test_the_keys_of_distractors_do_not_depend_on_where_they_are(photos, tsv, far, tmp_path):
    moved = shutil.copytree(far, tmp_path / "elsewhere")
    one, other = (opened(tmp_path, images=photos, captions=tsv, distractors=[place]) for place in (far, moved))
    assert one.sha256 == other.sha256


def test_the_other_images_of_the_same_folder_can_be_distractors(photos, tmp_path):
    captions = write_karpathy(tmp_path / "d.json", {"photo-01.png": ["a"], "more/photo-00.jpg": ["b"]})
    link = tmp_path / "link"
    link.symlink_to(photos)
    for place in (photos, link):
        data = opened(tmp_path, images=photos, captions=captions, distractors=[place])
        assert (data.counts["num_own"], data.counts["num_distractors"], data.counts["num_repeated"]) == (2, 10, 2)


def test_distractors_that_add_nothing_are_an_error(photos, tsv, tmp_path):
    with pytest.raises(InputError, match=r"distractors \S+photos0: all its 12 images are in the gallery already"):
        opened(tmp_path, images=photos, captions=tsv, distractors=[photos])


def test_a_key_that_looks_like_that_of_a_distractor_is_an_error_if_it_is_one(tmp_path, far):
    mine = tmp_path / "mine" / "distractors-1"
    mine.mkdir(parents=True)
    shutil.copy(far / "photo-02.jpg", mine / "photo-02.jpg")
    captions = write_tsv(tmp_path / "captions.tsv", {"distractors-1/photo-02.jpg": ["a"]})
    with pytest.raises(InputError, match=r"far: the data set has an image 'distractors-1/photo-02.jpg' itself"):
        opened(tmp_path, images=mine.parent, captions=captions, distractors=[far])


def test_a_missing_folder_of_distractors_is_an_error(photos, tsv, tmp_path):
    with pytest.raises(InputError, match=r"data set 'mine': source .*/nowhere does not exist"):
        opened(tmp_path, images=photos, captions=tsv, distractors=[tmp_path / "nowhere"])
