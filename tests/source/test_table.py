"""Lists of paths and URLs: CSV, TSV and JSON lines."""

import base64
import csv
import io
import json
import os
import random

import pytest

from pipeline.errors import InputError
from pipeline.source.entry import Source
from pipeline.source.formats import table
from pipeline.source.listing import list_source
from pipeline.source.reading import read_image

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(90))).decode().rstrip("=")


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
    listing = list_source(Source(location=str(path), format="auto", image_column="where", columns={"kind": ""}))
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
        ("a.csv", b"path,caption\na.jpg,one, two\n", r"row 1: expected 2 fields .*, found 3; quote fields"),
        ("a.csv", b"path\na.jpg\ncaf\xe9.jpg\n", r"a.csv is not UTF-8, .* \(after row \d\); save it as UTF-8"),
        ("a.csv", b"\xff\xfe" + "path\na.jpg\n".encode("utf-16-le")[:-1], r"a.csv is not UTF-8, or UTF-16 with"),
        ("a.csv", "path\na.jpg\n".encode("utf-16-le"), r"a.csv is not UTF-8, or UTF-16 with"),
        ("a.csv", b'path,caption\na.jpg,"never closed\nb.jpg,x\n', r"is not CSV: .* \(after row 0\); close every"),
        ("a.tsv", b"path\tcaption\na.jpg\n", r"a.tsv, row 1: expected 2 fields .*, found 1; a line must"),
        ("a.tsv", b'path\tcaption\na.jpg\t"a\tdog"\n', r"a.tsv, row 1: expected 2 fields .*, found 3; a line must"),
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


def test_one_file_in_several_spellings_is_several_rows(write, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"A")
    names = ["a.jpg", "./a.jpg", f"{tmp_path}/a.jpg", (tmp_path / "a.jpg").as_uri()]
    path = write("path,n\n" + "".join(f"{name},{number}\n" for number, name in enumerate(names)))
    found = entries(path)
    assert sorted(entry.key for entry in found) == sorted(names)
    assert {read_image(entry.uri) for entry in found} == {b"A"}
    assert [entry.key for entry in entries(path, key_column="n")] == ["0", "1", "2", "3"]


def test_rows_without_a_key_use_their_path(write):
    path = write("path,n\na.jpg,1\nb.jpg,\n")
    assert [entry.key for entry in entries(path, key_column="n")] == ["1", "b.jpg"]


def test_sizes_are_counted(write, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe.jpg")  # examined, never opened
    listing = list_source(Source(location=str(write("path\na.jpg\npipe.jpg\nnone.jpg\n")), format="auto"))
    assert (listing.num_images, listing.num_bytes, listing.left_out.counts) == (3, 5, {})


@pytest.mark.parametrize(
    ("field", "caption"),
    [
        ('"quoted start', '"quoted start'),
        ('its "end"', 'its "end"'),
        ('"The Thinker" by Rodin', '"The Thinker" by Rodin'),
        ('"The Thinker" and "The Kiss"', '"The Thinker" and "The Kiss"'),
        ('"', '"'),
        ('"""', '"""'),
        ("a, b; c", "a, b; c"),
        ("back\\slash \\t", "back\\slash \\t"),
        # as pandas and R quote
        ('"a plain dog"', "a plain dog"),
        ('"""The Thinker"" by Rodin"', '"The Thinker" by Rodin'),
        ('"a 5"" disk"', 'a 5" disk'),
        ('""', None),
        ('""""', '"'),
    ],
)
def test_a_line_of_tsv_is_a_row(write, field, caption):
    path = write(f"path\tcaption\tn\na.jpg\t{field}\t1\n\nb.jpg\tplain\t2\n", "list.tsv")
    found = entries(path, columns={"n": ""})
    assert [(entry.key, entry.caption, entry.extra["n"]) for entry in found] == [
        ("a.jpg", caption, "1"), ("b.jpg", "plain", "2"),
    ]  # fmt: skip


def test_fields_that_pythons_csv_writer_quotes_are_read_back(write):
    choose = random.Random(3)
    texts = ["".join(choose.choices('"a, ', k=choose.randrange(1, 7))) + "." * choose.randrange(2) for _ in range(500)]
    buffer = io.StringIO()
    csv.writer(buffer, "excel-tab").writerows([("path", "text"), *((f"{n}.jpg", text) for n, text in enumerate(texts))])
    found = entries(write(buffer.getvalue(), "list.tsv"), columns={"text": ""})
    assert {entry.key: entry.extra["text"] for entry in found} == {f"{n}.jpg": text for n, text in enumerate(texts)}


def test_values_that_json_calls_nan_are_null(write):
    path = write(
        '{"path": "a.jpg", "caption": NaN, "n": NaN}\n{"path": "b.jpg", "caption": " \\n", "n": [NaN]}\n', "l.jsonl"
    )
    assert [(entry.caption, entry.extra["n"]) for entry in entries(path, columns={"n": ""})] == [
        (None, None),
        (None, "[null]"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl"])
def test_encodings_and_line_ends(write, name, end, encoding):
    rows = [("å.jpg", "två hundar"), ("b.jpg", "犬, 🐕")]
    if name == "list.jsonl":
        lines = [json.dumps({"path": path, "caption": text}, ensure_ascii=False) for path, text in rows]
    else:
        separator = "," if name == "list.csv" else "\t"
        lines = [separator.join(("path", "caption")), *(f'{path}{separator}"{text}"' for path, text in rows)]
    assert captions(write("".join(line + end for line in lines).encode(encoding), name)) == dict(rows)


def test_long_fields(write, monkeypatch):
    text = "a dog " * 50_000 + "."
    assert captions(write(f"path,caption\na.jpg,{text}\n")) == {"a.jpg": text}
    monkeypatch.setattr(table, "MAX_FIELD", 1000)
    with pytest.raises(InputError, match=r"list.csv, line 2: more than 1,000 characters; check that the file is text"):
        captions(write(f"path,caption\na.jpg,{text}\n"))
    line = "x" * 99
    with pytest.raises(InputError, match=r"list.csv is not CSV: field larger than field limit \(1000\) .*close every"):
        captions(write('path,caption\na.jpg,"' + f"{line}\n" * 50))


@pytest.mark.parametrize("image", [f"data:image/png;base64,{PNG}", PNG, f"{PNG}=="])
@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl"])
def test_images_in_base64_are_refused(write, name, image):
    data = json.dumps({"image": image}) if name == "list.jsonl" else f'image\n"{image}"\n'
    with pytest.raises(InputError, match=r"row 1: 'image' holds an image as base64 text, but a list names files"):
        entries(write(data, name))


@pytest.mark.parametrize("name", ["/9j/a.jpg", "/9j/" + "x" * 100 + ".jpg", "R0lGOD", "data:image/a.jpg"])
def test_paths_that_look_like_base64(write, name):
    [entry] = entries(write(f'path\n"{name}"\n'))
    assert entry.key == name


def test_names_of_columns(write):
    path = write(" path , caption,n , , \na.jpg,one,7,x,y\n")
    [entry] = entries(path, columns={"n": ""})
    assert (entry.key, entry.caption, entry.extra) == ("a.jpg", "one", {"n": "7"})


@pytest.mark.parametrize(
    ("data", "name", "repeated", "spec"),
    [
        ("path,caption,caption\na.jpg,x,y\n", "l.csv", "caption", {}),
        ("path\tn\t n \na.jpg\tx\ty\n", "l.tsv", "n", {"columns": {"n": ""}}),
        ("path,path\na.jpg,b.jpg\n", "l.csv", "path", {}),
        ("path,n,n\na.jpg,1,2\n", "l.csv", "n", {"key_column": "n"}),
        ('{"path": "a.jpg", "caption": "x", "caption": "y"}\n', "l.jsonl", "caption", {}),
    ],
)
def test_a_column_that_is_used_must_have_a_name_of_its_own(write, data, name, repeated, spec):
    with pytest.raises(InputError, match=rf"{name}, row 1 has several columns named '{repeated}'; rename all but one"):
        entries(write(data, name), **spec)


@pytest.mark.parametrize(
    ("data", "name"),
    [("path,n,n,,\na.jpg,1,2,3,4\n", "l.csv"), ('{"path": "a.jpg", "n": 1, "n": {"a": 1, "a": 2}}\n', "l.jsonl")],
)
def test_other_columns_can_share_a_name(write, data, name):
    assert [entry.key for entry in entries(write(data, name))] == ["a.jpg"]


def test_one_order_of_usual_caption_columns(write):
    path = write("path,title,text,caption\na.jpg,1,2,3\n")
    assert captions(path) == {"a.jpg": "3"}
    assert captions(write("path,title,text\na.jpg,1,2\n")) == {"a.jpg": "2"}
    assert captions(path, caption_column="title") == {"a.jpg": "1"}
