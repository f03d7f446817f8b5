"""CLIP_benchmark's layout of WebDatasets, for captions and for classes."""

import pytest

from pipeline.errors import ConfigError, InputError
from pipeline.pixels.decode import decode_batch
from tests.kit.data_sets import answers_of, keys_of, opened, write_webdataset
from tests.kit.sources import PREPROCESS

NAMES = "red fox\nowl\ncat\n"


@pytest.fixture(scope="module")
def images(photos):
    return [path.read_bytes() for path in sorted(photos.rglob("*.jpg"))]


@pytest.fixture
def captioned(tmp_path, images):
    tars = [
        {"s0000000.jpg": images[0], "s0000000.txt": b"a fox\n \na red animal\n"},
        {"s0000001.txt": "un hibou \u2026\n\n".encode(), "s0000001.jpg": images[1], "s0000002.jpg": images[2]},
    ]
    return write_webdataset(tmp_path / "wds", tars, dataset_type="retrieval\n")


def classes_of(tars, tmp_path, **texts):
    texts = {"classnames": NAMES, "zeroshot_classification_templates": "a photo of a {c}.\nthe {c}!\n"} | texts
    return write_webdataset(tmp_path / "wds", tars, **texts)


@pytest.fixture
def classified(tmp_path, images):
    tars = [
        {"s0000000.cls": b"1", "s0000000.jpg": images[0], "s0000001.cls": b"0\n", "s0000001.jpg": images[1]},
        {"s0000002.jpg": images[2], "s0000002.cls": b"1"},
    ]
    return classes_of(tars, tmp_path)


def test_each_line_of_a_text_is_a_caption(captioned, tmp_path):
    data = opened(tmp_path, webdataset=captioned)
    assert data.kind == "captions"
    assert answers_of(data) == {
        "a fox": {"0.tar/s0000000.jpg": 1.0},
        "a red animal": {"0.tar/s0000000.jpg": 1.0},
        "un hibou \u2026": {"1.tar/s0000001.jpg": 1.0},
    }
    assert keys_of(data) == ["0.tar/s0000000.jpg", "1.tar/s0000001.jpg", "1.tar/s0000002.jpg"]
    assert data.counts["num_without_query"] == 1


def test_the_first_captions_are_queries_here_too(captioned, tmp_path):
    data = opened(tmp_path, webdataset=captioned, captions_per_image=1)
    assert (data.counts["num_queries"], data.counts["num_left_out"]) == (2, 1)


@pytest.mark.parametrize("kind", ["captioned", "classified"])
def test_the_images_are_read_again_by_uri(kind, tmp_path, request):
    data = opened(tmp_path, webdataset=request.getfixturevalue(kind))
    assert all(entry.data is None for entry in data.entries)  # a large data set does not fit in memory
    assert decode_batch(data.entries, PREPROCESS).is_ok_B.all()


def test_the_number_in_a_cls_is_the_place_of_the_class(classified, tmp_path):
    data = opened(tmp_path, webdataset=classified)
    assert data.kind == "classes"
    assert answers_of(data) == {
        "red fox": {"0.tar/s0000001.jpg": 1.0},
        "owl": {"0.tar/s0000000.jpg": 1.0, "1.tar/s0000002.jpg": 1.0},
        "cat": {},
    }
    assert data.prompts[0] == ["a photo of a red fox.", "the red fox!"]


def test_images_are_in_the_order_of_their_keys_with_many_tars(tmp_path, images):
    tars = [{"b.jpg": images[1], "b.cls": b"0", "a.jpg": images[0], "a.cls": b"%d" % (n % 3)} for n in range(11)]
    data = opened(tmp_path, webdataset=classes_of(tars, tmp_path))
    assert keys_of(data) == sorted(f"{n}.tar/{name}.jpg" for n in range(11) for name in "ab")
    assert answers_of(data)["owl"].keys() == {"1.tar/a.jpg", "4.tar/a.jpg", "7.tar/a.jpg", "10.tar/a.jpg"}
    assert data.pairs_P2.tolist() == sorted(data.pairs_P2.tolist())


def test_templates_of_the_user_come_before_those_of_the_folder(classified, tmp_path):
    (tmp_path / "mine.txt").write_text("{c}, my {c}\n")
    data = opened(tmp_path, webdataset=classified, templates=tmp_path / "mine.txt")
    assert data.prompts[1] == ["owl, my owl"]
    (classified / "zeroshot_classification_templates.txt").unlink()
    assert opened(tmp_path, webdataset=classified).prompts[1] == ["a photo of a owl."]


def test_a_split_that_is_not_there_is_an_error_that_names_those_there_are(captioned, tmp_path):
    (captioned / "empty").mkdir()
    for split in ("val", "empty"):
        with pytest.raises(InputError, match=f"webdataset .*wds has no split '{split}'; its folders with tars: test$"):
            opened(tmp_path, webdataset=captioned, split=split)


@pytest.mark.parametrize("text", ["3", "1", "two", ""])
def test_a_missing_tar_is_an_error(captioned, tmp_path, text):
    (captioned / "test" / "nshards.txt").write_text(text)
    with pytest.raises(InputError, match=f"nshards.txt: expected the number of the tars .* found '{text}' and 2 tars"):
        opened(tmp_path, webdataset=captioned)
    (captioned / "test" / "nshards.txt").unlink()
    assert opened(tmp_path, webdataset=captioned).counts["num_queries"] == 3


def test_a_tar_that_is_cut_is_an_error_with_advice_that_fits(captioned, tmp_path):
    path = captioned / "test" / "1.tar"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match=r"1.tar is damaged .*; replace it with an intact copy$"):
        opened(tmp_path, webdataset=captioned)


def test_a_text_without_an_image_is_an_error(tmp_path, images):
    tars = [{"a.jpg": images[0], "a.txt": b"a", "gone.txt": b"b"}]
    folder = write_webdataset(tmp_path / "wds", tars, dataset_type="retrieval")
    with pytest.raises(InputError, match=r"0.tar: the text '0.tar/gone.txt' belongs to no image"):
        opened(tmp_path, webdataset=folder)


def test_captions_that_are_all_blank_are_an_error(tmp_path, images):
    folder = write_webdataset(tmp_path / "wds", [{"a.jpg": images[0], "a.txt": b" \n"}], dataset_type="retrieval")
    with pytest.raises(InputError, match=r"no image of .*wds has a caption"):
        opened(tmp_path, webdataset=folder)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.cls": b"3"}, "0.tar: a.cls holds '3'; expected the number of a class, 0 to 2"),
        ({"a.cls": b"-1"}, "0.tar: a.cls holds '-1'; expected the number of a class, 0 to 2"),
        ({"a.cls": b"owl"}, "0.tar: a.cls holds 'owl'; expected the number of a class, 0 to 2"),
        ({"a.cls": b"1", "gone.cls": b"1"}, "0.tar: gone.cls belongs to no image"),
        ({"a.txt": b"an owl"}, "0.tar: image '0.tar/a.jpg' has no a.cls; .*write `retrieval` into .*dataset_type.txt"),
    ],
)
def test_a_bad_label_is_an_error_that_names_its_member(tmp_path, images, members, message):
    with pytest.raises(InputError, match=message) as caught:
        opened(tmp_path, webdataset=classes_of([{"a.jpg": images[0], **members}], tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "dataset_type",
            "multilabel",
            "dataset_type.txt: expected `retrieval` or `classification`, found 'multilabel'",
        ),
        ("classnames", "red fox\n\nowl\n", "classnames.txt, line 2 is blank"),
        ("classnames", "", "classnames.txt is empty"),
        ("zeroshot_classification_templates", "the {c}\na photo\n", "templates.txt, line 2: expected {c} .* 'a photo'"),
        ("zeroshot_classification_templates", "\n", "templates.txt is empty"),
    ],
)
def test_a_bad_text_file_is_an_error_that_names_its_line(classified, tmp_path, name, text, message):
    (classified / f"{name}.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        opened(tmp_path, webdataset=classified)


def test_names_of_classes_must_be_there(classified, tmp_path):
    (classified / "classnames.txt").unlink()
    with pytest.raises(InputError, match=r"cannot read names of classes .*classnames.txt"):
        opened(tmp_path, webdataset=classified)


def test_templates_of_captions_are_refused(captioned, tmp_path):
    (tmp_path / "t.txt").write_text("{c}")
    with pytest.raises(ConfigError, match="templates goes with classes, but this webdataset has captions"):
        opened(tmp_path, webdataset=captioned, templates=tmp_path / "t.txt")


def test_grades_of_classes_are_refused(classified, tmp_path):
    (tmp_path / "g.tsv").write_text("owl\t0.tar/s0000000.jpg\t1\n")
    with pytest.raises(ConfigError, match="grades goes with captions, but this webdataset has classes"):
        opened(tmp_path, webdataset=classified, grades=tmp_path / "g.tsv")
