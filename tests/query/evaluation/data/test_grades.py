"""Graded relevance: the captions of the file are the queries."""

import pytest

from pipeline.errors import InputError
from tests.kit.data_sets import answers_of, opened, write_karpathy, write_tsv


def graded(tmp_path, photos, text, **more):
    path = tmp_path / "grades.tsv"
    path.write_text(text)
    return opened(tmp_path, images=photos, grades=path, **more)


def test_a_caption_can_have_several_right_images_with_grades(tmp_path, photos):
    text = "b\tphoto-02.jpg\t3\na\tphoto-01.png\t1\n b \tmore/photo-00.jpg\t0.5\na\tphoto-02.jpg\t0\n"
    data = graded(tmp_path, photos, text)
    assert data.titles == ["b", "a"]
    assert answers_of(data) == {"b": {"more/photo-00.jpg": 0.5, "photo-02.jpg": 3.0}, "a": {"photo-01.png": 1.0}}
    assert data.pairs_P2.tolist() == sorted(data.pairs_P2.tolist())
    assert data.clusters_Q[1] < len(data.entries) <= data.clusters_Q[0]
    assert data.kind == "captions"


def test_captions_whose_grades_are_all_0_are_counted(tmp_path, photos):
    data = graded(tmp_path, photos, "a\tphoto-01.png\t1\nb\tphoto-01.png\t0\nb\tphoto-02.jpg\t0\n")
    assert data.titles == ["a"]
    assert data.counts["num_unanswered"] == 1


def test_captions_that_the_grades_do_not_name_are_counted(tmp_path, photos):
    captions = write_tsv(tmp_path / "captions.tsv", {"photo-01.png": ["a", "b"], "photo-02.jpg": ["c"]})
    data = graded(tmp_path, photos, "a\tphoto-01.png\t1\na\tphoto-02.jpg\t1\n", captions=captions)
    assert data.titles == ["a"]
    assert data.counts["num_ungraded"] == 2


def test_the_grades_are_part_of_the_hash(tmp_path, photos):
    hashes = {graded(tmp_path, photos, f"a\tphoto-01.png\t{grade}\n").sha256 for grade in ("1", "2", "1.0")}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tphoto-01.png\t1\nb\tphoto-00.jpg\t1\n", r"line 2: no image has the key 'photo-00.jpg'; .*'more/photo-00"),
        ("a\tgone.png\t1\n", r"line 1: no image has the key 'gone.png'; keys are as in the source, such as 'more/"),
        ("a\tphoto-01.png\n", "line 1: expected `caption TAB key TAB grade`"),
        ("a\tphoto-01.png\t1\t2\n", "line 1: expected `caption TAB key TAB grade`"),
        ("a\tphoto-01.png\tgood\n", "line 1: expected `caption TAB key TAB grade` with a grade of 0 or more"),
        ("a\tphoto-01.png\t-1\n", "line 1: expected .* with a grade of 0 or more"),
        ("a\tphoto-01.png\tnan\n", "line 1: expected .* with a grade of 0 or more"),
        ("a\tphoto-01.png\tinf\n", "line 1: expected .* with a grade of 0 or more"),
        (" \tphoto-01.png\t1\n", "line 1: expected `caption TAB key TAB grade`"),
        ("a\tphoto-01.png\t1\n\na\tphoto-01.png\t2\n", "lines 1 and 3 both judge 'photo-01.png' for one caption"),
        ("a\tphoto-01.png\t0\n", "has no grade above 0"),
        ("", "has no grade above 0"),
    ],
)
def test_bad_grades_are_an_error_that_names_the_line(tmp_path, photos, text, message):
    with pytest.raises(InputError, match=rf"data set 'mine': grades file \S+grades.tsv,? .*{message}") as caught:
        graded(tmp_path, photos, text)
    assert "\n" not in str(caught.value)


def test_an_image_of_another_split_is_unknown(tmp_path, photos):
    captions = write_karpathy(tmp_path / "d.json", {"photo-01.png": ["a"]}, others=[("photo-02.jpg", "train")])
    with pytest.raises(InputError, match=r"line 1: no image has the key 'photo-02.jpg'"):
        graded(tmp_path, photos, "a\tphoto-02.jpg\t1\n", captions=captions)
