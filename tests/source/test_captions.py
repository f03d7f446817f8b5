"""Captions files: how their lines end, and keys that mean an image without naming it exactly."""

import codecs
import unicodedata

import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.source.entry import ImageEntry, Source
from pipeline.source.formats.captions import list_captioned, read_captions
from pipeline.source.listing import list_source


@pytest.fixture
def captioned(tmp_path):
    """Captions by the keys of a folder's images, as `embed` and as the measuring verbs read them."""

    def read(images, text):
        folder = tmp_path / "photos"
        for name in images:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2)).save(folder / name, "PNG")
        path = tmp_path / "captions.tsv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        listing = list(list_source(Source(location=str(folder), format="auto"), path))
        first = {entry.key: entry.caption for entry in listing if entry.caption}
        entries, found = list_captioned(folder, path)
        assert {entry.key: entry.caption for entry in entries if entry.caption} == first
        assert {key: texts[0] for key, texts in found.items()} == first
        return found

    return read


def lost(captioned, images, text, hint):
    with pytest.raises(InputError, match=hint) as caught:
        captioned(images, text)
    assert "\n" not in str(caught.value)


# --- line ends and encodings


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "{end}", "{end}{end}"])
def test_any_kind_of_line_end(tmp_path, end, last):
    path = tmp_path / "captions.tsv"
    path.write_bytes(f"a.jpg\tone{end}{end}b.jpg\ttwo{last.format(end=end)}".encode())
    assert read_captions(path) == {"a.jpg": ["one"], "b.jpg": ["two"]}


def test_a_carriage_return_inside_a_line_stays(tmp_path):
    (tmp_path / "captions.tsv").write_bytes(b"a.jpg\tone\rstill one\nb.jpg\ttwo\r\n")
    assert read_captions(tmp_path / "captions.tsv") == {"a.jpg": ["one\rstill one"], "b.jpg": ["two"]}


@pytest.mark.parametrize(("mark", "encoding"), [(codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")])
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_utf_16_with_a_mark(tmp_path, mark, encoding, end):
    (tmp_path / "captions.tsv").write_bytes(mark + f"a.jpg\tein Käfer{end}b.jpg\t狗".encode(encoding))
    assert read_captions(tmp_path / "captions.tsv") == {"a.jpg": ["ein Käfer"], "b.jpg": ["狗"]}


# --- keys


@pytest.mark.parametrize("key", ["./x.png", ".\\x.png", "././x.png", "more/../x.png", "X.PNG", "x.Png", ".//x.png"])
def test_a_key_that_means_one_image(captioned, key):
    assert captioned(["x.png", "more/y.png"], f"{key}\ta cat\n") == {"x.png": ["a cat"]}


@pytest.mark.parametrize("key", ["more\\y.png", ".\\more\\y.png", "./more/y.png", "more//y.png", "More/Y.PNG"])
def test_a_key_in_a_folder(captioned, key):
    assert captioned(["x.png", "more/y.png"], f"{key}\ta cat\n") == {"more/y.png": ["a cat"]}


def test_absolute_paths(captioned, tmp_path):
    assert captioned(["more/y.png"], f"{tmp_path}/photos/more/y.png\ta cat\n") == {"more/y.png": ["a cat"]}


def test_absolute_paths_of_a_linked_folder(captioned, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "photos").symlink_to("real")
    assert captioned(["y.png"], f"{tmp_path}/real/y.png\ta cat\n") == {"y.png": ["a cat"]}


@pytest.mark.parametrize(("of_file", "of_key"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_unicode_forms(captioned, of_file, of_key):
    file, key = (unicodedata.normalize(form, "café.png") for form in (of_file, of_key))
    assert file != key
    assert captioned([file], f"{key}\ta cup\n") == {file: ["a cup"]}


def test_an_exact_key_comes_first(captioned):
    images = [
        "a.png",
        "A.png",
        unicodedata.normalize("NFC", "é.png"),
        unicodedata.normalize("NFD", "é.png"),
        "b\\c.png",
    ]
    text = "".join(f"{name}\tcaption {number}\n" for number, name in enumerate(images))
    assert captioned(images, text) == {name: [f"caption {number}"] for number, name in enumerate(images)}


def test_captions_of_one_image_keep_their_order(captioned):
    assert captioned(["x.png"], "./x.png\tfirst\nx.png\tsecond\n") == {"x.png": ["first", "second"]}


@pytest.mark.parametrize(
    ("images", "text", "hint"),
    [
        (["a.png", "A.png"], "a.PNG\tx\n", r"1 captioned .*first 'a.PNG'; it may mean 'A.png' or 'a.png': write"),
        (["a.png"], "a.PNG\tx\nA.png\ty\n", "2 captioned .*another caption is for 'a.png', the only image with a sim"),
        (["a.png"], "a.png\tx\nA.png\ty\n", "first 'A.png'; another caption is for 'a.png'"),
        (["more/y.png"], "y.png\tx\n", "relative to the source folder, such as 'more/y.png'"),
        (["more/y.png"], "C:\\data\\Y.PNG\tx\n", "relative to the source folder, such as 'more/y.png'"),
        (["a.png"], "/elsewhere/b.png\tx\n", "first '/elsewhere/b.png'; keys must be paths relative to the source f"),
        (["a.png"], "../b.png\tx\n", r"first '../b.png'; keys must be paths"),
    ],
)
def test_a_key_that_means_no_image_or_several(captioned, images, text, hint):
    lost(captioned, images, text, hint)


def test_many_keys_that_mean_no_image_are_counted(captioned, monkeypatch):
    monkeypatch.setattr("pipeline.source.formats.captions.MAX_STRANGERS", 2)
    text = "".join(f"{number}.PNG\tx\n" for number in range(5))
    lost(captioned, [f"{number}.png" for number in range(5)], text, "5 captioned images .*first '0.PNG'; .*'0.png'")


def test_a_file_of_another_folder_on_a_server(tmp_path):
    # keys of object stores may hold what a path on disk cannot
    from pipeline.source.formats.captions import sorted_captions

    (tmp_path / "c.tsv").write_text(".//a.png\tone\n./b.png\ttwo\n")
    entries = [ImageEntry(key, "", 0, 0) for key in (".//a.png", "b.png")]
    assert list(sorted_captions(entries, "s3://bucket/photos", tmp_path / "c.tsv")) == [
        (".//a.png", "one"),
        ("b.png", "two"),
    ]
