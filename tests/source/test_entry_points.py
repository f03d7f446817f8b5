"""Listing a folder and reading captions."""

import os
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.source.access.location import path_of
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.captions import read_captions, with_captions
from pipeline.source.formats.folder import list_images
from pipeline.source.formats.text import as_text


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def keys(folder):
    return [entry.key for entry in list_images(folder)[0]]


def test_images_are_listed_recursively_and_sorted_by_key(tmp_path):
    touch(tmp_path, "b.jpg", "a/z.png", "a/b/c.webp", "B.JPG", "a.jpeg")
    assert keys(tmp_path) == ["B.JPG", "a.jpeg", "a/b/c.webp", "a/z.png", "b.jpg"]


def test_the_same_stem_can_occur_twice(tmp_path):
    touch(tmp_path, "dog.jpg", "dog.png", "x/dog.jpg")
    assert keys(tmp_path) == ["dog.jpg", "dog.png", "x/dog.jpg"]


def test_other_and_hidden_files_are_counted(tmp_path):
    touch(tmp_path, "a.jpg", "notes.txt", "x/README", ".hidden.jpg", ".cache/b.jpg")
    entries, left_out = list_images(tmp_path)
    assert [entry.key for entry in entries] == ["a.jpg"]
    assert left_out.counts == {"other_suffix": 2, "hidden": 2}


def test_an_entry_has_uri_size_and_time(tmp_path, monkeypatch):
    touch(tmp_path, "photos/a b#1.jpg")
    monkeypatch.chdir(tmp_path)
    [entry], _ = list_images(tmp_path.relative_to(tmp_path) / "photos")
    assert entry.uri == f"file://{tmp_path}/photos/a%20b%231.jpg"
    assert path_of(entry.uri) == str(tmp_path / "photos/a b#1.jpg")
    assert entry.num_bytes == len("photos/a b#1.jpg")
    assert entry.mtime_ns == (tmp_path / "photos/a b#1.jpg").stat().st_mtime_ns


def test_links(tmp_path):
    touch(tmp_path, "in/a.jpg", "out/b.jpg")
    (tmp_path / "in/link.jpg").symlink_to(tmp_path / "out/b.jpg")
    (tmp_path / "in/dangling.jpg").symlink_to("nowhere")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/folder.jpg").symlink_to(tmp_path / "out")
    entries, _ = list_images(tmp_path / "in")
    assert [(entry.key, entry.num_bytes) for entry in entries] == [("a.jpg", 8), ("dangling.jpg", 0), ("link.jpg", 9)]


def test_pipes_are_listed_without_being_opened_and_folders_are_not_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would hang; decoding gives it a row with the reason
    (tmp_path / "folder.jpg").mkdir()
    assert keys(tmp_path) == ["pipe.jpg"]


def test_names_that_are_not_utf8_are_escaped_in_the_key_but_found_by_the_uri(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    touch(tmp_path, name, "line\nbreak.jpg")
    entries = {entry.key: entry for entry in list_images(tmp_path)[0]}
    assert set(entries) == {"caf\\xe9.jpg", "line\nbreak.jpg"}
    assert path_of(entries["caf\\xe9.jpg"].uri) == str(tmp_path / name)
    assert Path(path_of(entries["line\nbreak.jpg"].uri)).exists()


def test_as_text_can_be_stored(tmp_path):
    assert as_text(tmp_path / "snö") == f"{tmp_path}/snö"
    assert as_text(tmp_path / os.fsdecode(b"\xff")) == f"{tmp_path}/\\xff"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "does not exist"),
        ("file.jpg", "is not a folder"),
        ("empty", "contains no images"),
        ("texts", "contains no images"),
    ],
)
def test_nothing_to_embed(tmp_path, name, reason):
    touch(tmp_path, "file.jpg", "texts/a.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=reason) as caught:
        list_images(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


# --- captions


def captions_file(tmp_path, data):
    path = tmp_path / "captions.tsv"
    path.write_bytes(data)
    return path


def test_captions_keep_order_and_repeats(tmp_path):
    path = captions_file(tmp_path, "b.jpg\tone\r\na.jpg\t två  \n\nb.jpg\ttwo\tand a tab\n".encode())
    assert read_captions(path) == {"b.jpg": ["one", "two\tand a tab"], "a.jpg": ["två"]}


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path):
    assert read_captions(captions_file(tmp_path, b"\xef\xbb\xbfa.jpg\tone\n")) == {"a.jpg": ["one"]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a.jpg\tone\nno tab here\n", "line 2: expected `key TAB caption`, found 'no tab here'"),
        (b"\tcaption\n", "line 1"),
        (b"a.jpg\t \n", "line 1"),
        (b"\n\n", "is empty"),
        (b"a.jpg\tcaf\xe9\n", "is not UTF-8"),
    ],
)
def test_bad_captions(tmp_path, data, reason):
    with pytest.raises(InputError, match=reason):
        read_captions(captions_file(tmp_path, data))


def test_missing_captions(tmp_path):
    with pytest.raises(InputError, match=r"cannot read captions file .*No such file"):
        read_captions(tmp_path / "none.tsv")


def test_first_caption_goes_to_the_image():
    entries = [ImageEntry(key, f"file:///{key}", 1, 1) for key in ("a.jpg", "b.jpg")]
    captioned = with_captions(entries, {"b.jpg": ["first", "second"]})
    assert [entry.caption for entry in captioned] == [None, "first"]


def test_a_caption_of_a_missing_image_is_refused():
    entries = [ImageEntry("a.jpg", "file:///a.jpg", 1, 1)]
    with pytest.raises(InputError, match=r"2 captioned images are not in the source, first 'b.jpg'"):
        with_captions(entries, {"c.jpg": ["x"], "a.jpg": ["x"], "b.jpg": ["x"]})
