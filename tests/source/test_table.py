"""Lists of paths and URLs: CSV, TSV and JSON lines."""

import json
import os

import pytest

from pipeline.errors import InputError
from pipeline.source.entry import Source
from pipeline.source.listing import list_source
from pipeline.source.reading import read_image


@pytest.fixture
def write(tmp_path):
    """Writes a list, by default `list.csv`."""

    def write_file(data, name="list.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write_file


def entries(location, **spec):
    return list(list_source(Source(location=str(location), format="auto", **spec)))


def captions(location, **spec):
    return {entry.key: entry.caption for entry in entries(location, **spec)}


def test_csv(write):
    path = write('id,image_path,caption\n1,b.jpg,"two, of ""three""\nlines"\n2,"a, b.jpg",\n3,c.jpg,plain\n')
    assert captions(path) == {"a, b.jpg": None, "b.jpg": 'two, of "three"\nlines', "c.jpg": "plain"}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(("name", "separator"), [("list.csv", ","), ("list.tsv", "\t"), ("LIST.TSV", "\t")])
def test_marks_and_line_ends(write, end, mark, name, separator):
    lines = [("filepath", "title"), ("å.jpg", "en bild"), ("b.jpg", "another")]
    path = write(mark + "".join(separator.join(line) + end for line in lines), name)
    assert captions(path) == {"å.jpg": "en bild", "b.jpg": "another"}


@pytest.mark.parametrize("name", ["list.jsonl", "list.ndjson"])
def test_json_lines(write, name):
    rows = [
        {"url": "https://host/a.jpg", "text": "a", "width": 3, "tags": ["x", "å"]},
        {"file_name": "b.jpg", "caption": ["first", "second"], "width": None},  # rows can have different fields
        {"url": "c.jpg", "width": 4.5, "more": {"deep": True}},
    ]
    path = write("\n\n".join(json.dumps(row) for row in rows) + "\n", name)
    found = {
        entry.key: entry
        for entry in entries(
            path,
            columns={
                "width": "",
            },
        )
    }
    assert {key: entry.caption for key, entry in found.items()} == {
        "https://host/a.jpg": "a", "b.jpg": "first", "c.jpg": None,
    }  # fmt: skip
    assert [found[key].extra["width"] for key in ("https://host/a.jpg", "b.jpg", "c.jpg")] == ["3", None, "4.5"]


def test_json_that_holds_half_a_character(write):
    path = write(rb'{"path": "a\udc00.jpg", "caption": "\ud800"}', "list.jsonl")
    [entry] = entries(path)
    assert (entry.key, entry.caption) == ("a?.jpg", "?")


def test_paths_are_relative_to_the_list(write, tmp_path):
    for name in ("sets/photos/a #1.jpg", "other/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    names = ["photos/a #1.jpg", "./photos/../photos/a #1.jpg", "../other/b.jpg", f"{tmp_path}/other/b.jpg",
             (tmp_path / "other/b.jpg").as_uri(), "s3://bucket/c d.jpg", "none.jpg"]  # fmt: skip
    path = write("path\n" + "".join(f"{name}\n" for name in names), "sets/list.csv")
    found = {entry.key: entry for entry in entries(path)}
    assert found.keys() == set(names)
    for name, real in zip(names, ["sets/photos/a #1.jpg"] * 2 + ["other/b.jpg"] * 3, strict=False):
        assert read_image(found[name].uri) == real.encode()
        status = (tmp_path / real).stat()
        assert (found[name].num_bytes, found[name].mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert found["s3://bucket/c d.jpg"].uri == "s3://bucket/c d.jpg"
    assert [(found[name].num_bytes, found[name].mtime_ns) for name in names[-2:]] == [(0, 0)] * 2
    with pytest.raises(FileNotFoundError):
        read_image(found["none.jpg"].uri)


def test_a_list_named_from_elsewhere_is_the_same_list(write, tmp_path, monkeypatch):
    path = write("path\na.jpg\n", "sets/list.csv")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    listings = [list_source(Source(location=name, format="auto")) for name in (str(path), "../sets/list.csv")]
    assert listings[0].source == listings[1].source
    assert list(listings[0]) == list(listings[1])


def test_columns_by_name(write):
    path = write("n,where,what,kind,path\n7,a.jpg,one,x,wrong\n8,b.jpg,two,,wrong\n9,c.jpg,three,z,wrong\n")
    found = entries(
        path,
        image_column="where",
        key_column="n",
        caption_column="what",
        columns={"kind": "", "n": ""},
        key_prefix="p/",
    )
    assert [(entry.key, entry.uri[-5:], entry.caption, entry.extra) for entry in found] == [
        ("p/7", "a.jpg", "one", {"kind": "x", "n": "7"}),
        ("p/8", "b.jpg", "two", {"kind": "", "n": "8"}),
        ("p/9", "c.jpg", "three", {"kind": "z", "n": "9"}),
    ]
    listing = list_source(Source(location=str(path), format="auto", columns={"kind": ""}))
    assert listing.source.columns == {"kind": "string"}
    assert listing.num_images == 3


@pytest.mark.parametrize(
    ("flag", "spec"),
    [
        ("--image-column", {"image_column": "z"}),
        ("--key-column", {"key_column": "z"}),
        ("--caption-column", {"caption_column": "z"}),
        ("--columns", {"columns": {"kind": "", "z": ""}}),
    ],
)
def test_missing_columns(write, flag, spec):
    path = write("path,kind\na.jpg,x\n")
    with pytest.raises(InputError, match=rf"list.csv has no column 'z'; pass {flag} with one of path, kind"):
        entries(path, **spec)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", r"a.csv is empty; expected a header and one image per line"),
        ("a.csv", b"\xef\xbb\xbf", r"is empty"),
        ("a.csv", b"path,caption\n", r"is empty"),
        ("a.jsonl", b"\n  \n", r"is empty"),
        ("a.csv", b"picture,words\na.jpg,x\n", r"no path column with a usual name; .* one of picture, words"),
        ("a.csv", b"path\na.jpg\n\"\"\n", r"a.csv, row 2: no 'path'; every row"),
        ("a.csv", b"caption,path\nx,a.jpg\nonly\n", r"row 2: no 'path'"),
        ("a.csv", b"path,caption\na.jpg,one, two\n", r"row 1: more fields than the header has; quote fields"),
        ("a.csv", b"path\na.jpg\ncaf\xe9.jpg\n", r"a.csv is not UTF-8 \(after row \d\); save it as UTF-8"),
        ("a.csv", b"path\n" + b"a" * 200_000, r"cannot read list .*a.csv: field larger than field limit"),
        ("a.jsonl", b'{"path": "a.jpg"}\n{"path": \n', r"a.jsonl, line 2 is not JSON: .*; expected one object"),
        ("a.jsonl", b'["a.jpg"]\n', r"""line 1: expected a JSON object, found '\["a.jpg"\]"""),
        ("a.jsonl", b'{"path": "a.jpg"}\n{"caption": "x"}\n', r"row 2: no 'path'"),
        ("a.jsonl", b'{"path": "a.jpg"}\n\n{"path": null}\n', r"row 2: no 'path'"),
        ("a.csv", b"url\nfoo://host/a.jpg\n", r"cannot open foo://host/a.jpg: .*foo"),
    ],
)  # fmt: skip
def test_lists_that_are_refused(write, name, data, message):
    path = write(data, name)
    with pytest.raises(InputError, match=message) as caught:
        entries(path)
    assert "\n" not in str(caught.value)


def test_a_missing_list(tmp_path):
    with pytest.raises(InputError, match=r"cannot read list .*none.csv: No such file .*; check its name"):
        entries(tmp_path / "none.csv")


def test_repeated_paths_are_refused(write):
    path = write("path,caption\nb.jpg,1\na.jpg,2\nb.jpg,3\n")
    with pytest.raises(InputError, match=r"has the key 'b.jpg' twice \(.*b.jpg and .*b.jpg\); keys must be unique"):
        entries(path)
    assert len(entries(path, key_column="caption")) == 3
    path = write("path,n\na.jpg,1\nc/b.jpg,1\n")
    with pytest.raises(InputError, match=r"has the key '1' twice \(.*/a.jpg and .*/c/b.jpg\)"):
        entries(path, key_column="n")


def test_rows_without_a_key_use_their_path(write):
    path = write("path,n\na.jpg,1\nb.jpg,\n")
    assert [entry.key for entry in entries(path, key_column="n")] == ["1", "b.jpg"]


def test_sizes_are_counted(write, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe.jpg")  # examined, never opened
    listing = list_source(Source(location=str(write("path\na.jpg\npipe.jpg\nnone.jpg\n")), format="auto"))
    assert (listing.num_images, listing.num_bytes, listing.left_out.counts) == (3, 5, {})


@pytest.mark.parametrize(
    "lines", [['"quoted start', "plain"], ['"quoted start', 'its "end"'], ['"The Thinker" by Rodin', "plain"]]
)
def test_a_stray_quote_swallows_no_line(write, lines):
    path = write("path\tcaption\n" + "".join(f"{number}.jpg\t{line}\n" for number, line in enumerate(lines)), "l.tsv")
    with pytest.raises(InputError, match=r"cannot read list .*; check its name and format"):
        entries(path)
