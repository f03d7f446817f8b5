"""WebDataset tars: what they contain, which files are found, and what is refused."""

import io
import json
import os
import random
import tarfile

import pytest

from pipeline.errors import InputError
from pipeline.source.entry import SourceFile
from pipeline.source.formats import webdataset
from pipeline.source.left_out import Kind, ReadNotes
from pipeline.source.reading import read_file, read_image
from tests.kit.sources import listed


def write_tar(path, members, form=tarfile.PAX_FORMAT):
    """Write a tar of (name, bytes) pairs. A pair with None makes a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for number, (name, data) in enumerate(members):
            info = tarfile.TarInfo(name)
            info.mtime = 1000 + number
            if data is None:
                info.type = tarfile.DIRTYPE
            info.size = len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
    return path


def read_all(location, source_format="auto", **spec):
    listing = listed(location, source_format, **spec)
    return [entry for file in listing.files for entry in read_file(file, listing.source, 0, 0)]


def read_with_notes(location, **spec):
    """The images of a tar, and what else it holds."""
    listing, notes = listed(location, **spec), ReadNotes()
    [file] = listing.files
    return list(read_file(file, listing.source, 0, 0, notes)), notes.left_out


def keys(location, source_format="auto"):
    return [file.key for file in listed(location, source_format).files]


def test_every_image_member_is_a_row(tmp_path):
    members = [
        ("a.jpg", b"A"), ("a.png", b"AA"), ("a.seg.webp", b"AAA"), ("a.cls", b"7"), ("a.npy", b"no image"),
        ("b.JPEG", b"B"), ("c.txt", b"a caption without an image"),
    ]  # fmt: skip
    path = write_tar(tmp_path / "x.tar", members)
    found = read_all(path)
    assert [(entry.key, entry.data, entry.num_bytes) for entry in found] == [
        ("x.tar/a.jpg", b"A", 1),
        ("x.tar/a.png", b"AA", 2),
        ("x.tar/a.seg.webp", b"AAA", 3),
        ("x.tar/b.JPEG", b"B", 1),
    ]
    assert [entry.mtime_ns for entry in found] == [n * 10**9 for n in (1000, 1001, 1002, 1005)]
    assert all(entry.uri.startswith(path.as_uri()) for entry in found)


def test_captions_and_fields_of_other_members(tmp_path):
    fields = {"caption": "of json", "alt": "other", "width": 3, "tags": ["x", "ü"], "none": None}
    members = [
        ("a.txt", b"  before \n"), ("a.jpg", b"A"),
        ("b.jpg", b"B"), ("b.json", json.dumps(fields).encode()),
        ("c.json", json.dumps(fields).encode()), ("c.jpg", b"C"), ("c.png", b"C"), ("c.txt", b"of txt"),
        ("d.jpg", b"D"), ("d.json", b"{broken"), ("d.txt", b"caf\xe9"),
        ("e.jpg", b"E"), ("e.json", b"[1]"),
        ("f.jpg", b"F"), ("f.json", b"[" * 100_000),
        ("g.jpg", b"G"), ("g.json", rb'{"caption": "half \ud800", "tags": "\udc00"}'),
    ]  # fmt: skip
    path = write_tar(tmp_path / "x.tar", members)
    found = {entry.key[6:]: entry for entry in read_all(path, columns=dict.fromkeys(("width", "tags", "none"), ""))}
    assert {key: entry.caption for key, entry in found.items()} == {
        "a.jpg": "before", "b.jpg": "of json", "c.jpg": "of txt", "c.png": "of txt", "d.jpg": "caf\ufffd",
        "e.jpg": None, "f.jpg": None, "g.jpg": "half ?",
    }  # fmt: skip
    assert found["b.jpg"].extra == {"width": "3", "tags": '["x", "ü"]', "none": None}
    assert found["a.jpg"].extra == {"width": None, "tags": None, "none": None}
    assert found["g.jpg"].extra["tags"] == "?"
    assert {entry.key[6:]: entry.caption for entry in read_all(path, caption_column="alt")} == {
        "a.jpg": "before", "b.jpg": "other", "c.jpg": "other", "c.png": "other", "d.jpg": "caf\ufffd",
        "e.jpg": None, "f.jpg": None, "g.jpg": None,
    }  # fmt: skip
    assert listed(path, columns={"width": ""}).source.columns == {"width": "string"}


def test_folders_and_hidden_members(tmp_path):
    members = [
        ("./", None), ("./one", None), ("./one/a.b.jpg", b"1"), ("./two/a.jpg", b"2"), ("./two/._a.jpg", b"mac"),
        ("./.jpg", b"no stem"), ("./README", b"text"), ("./folder.jpg", None),
    ]  # fmt: skip
    assert [entry.key for entry in read_all(write_tar(tmp_path / "x.tar", members))] == [
        "x.tar/./one/a.b.jpg",
        "x.tar/./two/a.jpg",
    ]


NAMES = ["a b.jpg", "c#1.jpg", "d%20e.jpg", "f&row=3.jpg", "g#member=h.jpg", "snö/ü.jpg", "q?.jpg", "line\nbreak.jpg",
         f"{'long' * 60}/{'name' * 40}.jpg", os.fsdecode(b"caf\xe9.jpg")]  # fmt: skip


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_an_image_can_be_read_by_its_uri_whatever_its_name(tmp_path, form):
    members = [(name, str(number).encode()) for number, name in enumerate(NAMES)]
    found = read_all(write_tar(tmp_path / "with space #1%" / "x.tar", members, form))
    assert [entry.data for entry in found] == [data for _, data in members]
    assert [read_image(entry.uri) for entry in found] == [data for _, data in members]
    assert [entry.key for entry in found][:4] == [f"x.tar/{name}" for name in NAMES[:4]]
    for entry in found:  # Parquet can hold them
        entry.key.encode("utf-8")
        entry.uri.encode("ascii")


def test_a_missing_member(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.jpg", b"A")])
    for uri in (f"{path.as_uri()}#member=b.jpg", f"{(tmp_path / 'y.tar').as_uri()}#member=a.jpg"):
        with pytest.raises(OSError, match=r"b\.jpg|No such file"):
            read_image(uri)


def test_members_beyond_the_limit_are_not_read(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "x.tar", [("a.jpg", b"A" * 101), ("b.jpg", b"B" * 100)])
    monkeypatch.setattr(webdataset, "MAX_FILE_BYTES", 100)
    large, small = read_all(path)
    assert (large.num_bytes, large.data) == (101, b"")
    assert (small.num_bytes, small.data) == (100, b"B" * 100)
    with pytest.raises(OSError, match=r"101 bytes, the limit is 100"):
        read_image(large.uri)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"x")],
            r"'a.txt' is out of order, it comes after its image.*sort",
        ),
        ([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3")], r"member 'a.jpg' is there twice"),
        ([("a.jpg", b"1"), ("a.txt", b"2"), ("a.jpg", b"3")], r"member 'a.jpg' is there twice"),
        ([("a.txt", b"1"), ("a.txt", b"2"), ("a.jpg", b"3")], r"member 'a.txt' is there twice"),
        ([("d/a.jpg", b"1"), ("d/b.jpg", b"2"), ("d/a.json", b"3")], r"'d/a.json' is out of order"),
    ],
)
def test_a_text_must_not_come_after_its_image_and_names_occur_once(tmp_path, members, message):
    path = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(InputError, match=message) as caught:
        read_all(path)
    assert path.as_uri() in str(caught.value)


def test_members_may_be_out_of_order_as_long_as_no_text_is_too_late(tmp_path):
    members = [
        ("a.txt", b"of a"), ("b.txt", b"of b"), ("d/a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3"), ("d/a.png", b"4"),
        ("a.cls", b"0"), ("d/a.notes.txt", b"of no image"),
    ]  # fmt: skip
    found = read_all(write_tar(tmp_path / "x.tar", members))
    assert [(entry.data, entry.caption) for entry in found] == [
        (b"1", None), (b"2", "of b"), (b"3", "of a"), (b"4", None),
    ]  # fmt: skip


def test_equal_names_in_other_folders_are_other_keys(tmp_path):
    members = [("d/a.jpg", b"1"), ("e/a.jpg", b"2"), ("a.jpg", b"3")]
    assert [entry.data for entry in read_all(write_tar(tmp_path / "x.tar", members))] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("members", [[], [("a.cls", b"1")], [("a.txt", b"1")]])
def test_a_tar_without_images_has_no_rows_and_is_counted(tmp_path, members):
    path = write_tar(tmp_path / "x.tar", members)
    assert listed(path).num_images is None
    found, left_out = read_with_notes(path)
    assert found == []
    assert left_out.counts[Kind.TAR_WITHOUT_IMAGE] == 1
    assert left_out.names[Kind.TAR_WITHOUT_IMAGE] == ["x.tar"]


# --- damage

MEMBERS = [(f"{number}.jpg", bytes([number + 1]) * 700) for number in range(4)]
MEMBER_BYTES = 512 + 1024


@pytest.mark.parametrize(
    ("num_bytes", "num_images", "reason"),
    [
        (2 * MEMBER_BYTES + 512 + 300, 2, "unexpected end of data"),  # in data
        (2 * MEMBER_BYTES + 512 + 800, 2, "unexpected end of data"),  # in the padding
        (3 * MEMBER_BYTES, 2, "it has no end marker"),  # between members
        (4 * MEMBER_BYTES, 3, "it has no end marker"),
        (3 * MEMBER_BYTES + 200, 2, "truncated header"),
        (100, 0, "truncated header"),
        (0, 0, "it has no end marker"),
    ],
)
def test_a_truncated_tar(tmp_path, num_bytes, num_images, reason):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    os.truncate(path, num_bytes)
    with pytest.raises(InputError, match=rf"is damaged after {num_images} images \({reason}\); .*--on-change embed"):
        read_all(path)


@pytest.mark.parametrize("member", [0, 1, 3])
def test_a_damaged_header_is_not_the_end(tmp_path, member):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    data = bytearray(path.read_bytes())
    data[member * MEMBER_BYTES + 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged after \d images \(bad checksum\)"):
        read_all(path)


def test_data_after_the_end_marker_is_an_error(tmp_path):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(InputError, match=r"damaged after 4 images \(.*after its end marker\)"):
        read_all(path)
    one_block = path.read_bytes()[: 4 * MEMBER_BYTES + 512]  # half an end marker is enough
    path.write_bytes(one_block)
    assert len(read_all(path)) == 4


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_every_error_in_a_tar_is_one_line(tmp_path, form):
    names = ["a.jpg", f"{'long' * 60}.jpg", "snö.jpg", "z.jpg"]
    whole = write_tar(tmp_path / "whole.tar", [(name, b"x" * 600) for name in names], form).read_bytes()
    choose = random.Random(1)
    messages = []
    path = tmp_path / "x.tar"
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(choose.choice((1, 3, 30))):
            data[choose.randrange(len(whole.rstrip(b"\0")))] = choose.randrange(256)
        path.write_bytes(data)
        try:
            read_all(path)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)


def test_a_tar_that_was_replaced_after_planning_is_refused(tmp_path):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    listing = listed(path)
    write_tar(path, [*MEMBERS, ("9.jpg", b"9" * 20_000)])
    with pytest.raises(InputError, match=r"x.tar changed since the run was planned; .*--on-change embed"):
        list(read_file(listing.files[0], listing.source, 0, 0))
    path.unlink()
    with pytest.raises(InputError, match=r"cannot read .*x.tar: No such file"):
        list(read_file(listing.files[0], listing.source, 0, 0))


# --- which files


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar.zst"])
def test_compressed_tars_are_refused(tmp_path, name):
    with tarfile.open(tmp_path / name, "w:gz"):
        pass
    with pytest.raises(InputError, match=rf"{name} is compressed; decompress it to a plain .tar"):
        listed(tmp_path / name)


def test_a_compressed_tar_with_a_plain_name(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(InputError, match=r"x.tar is compressed with gzip, .* plain tar; .*--on-change embed"):
        read_all(tmp_path / "x.tar")


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"BZh91AY", "compressed with bzip2"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"<html>", r"damaged after 0 images \("),
    ],
)
def test_other_files_with_the_name_of_a_tar(tmp_path, start, reason):
    (tmp_path / "x.tar").write_bytes(start + bytes(range(256)) * 8)
    with pytest.raises(InputError, match=rf"x.tar is {reason}"):
        read_all(tmp_path / "x.tar")


def test_patterns(tmp_path):
    for number in range(12):
        write_tar(tmp_path / f"shards/{number:03d}.tar", [(f"{number}.jpg", b"x")])
    every = [f"{number:03d}.tar" for number in range(12)]
    assert keys(tmp_path / "shards/{000..011}.tar") == every
    assert keys(tmp_path / "shards/00{3,5}.tar") == ["003.tar", "005.tar"]
    assert keys(tmp_path / "shards/00[0-4].tar") == every[:5]
    assert keys(tmp_path / "shards/*.tar") == every
    assert keys(tmp_path / "sh*/00?.tar") == [f"shards/{name}" for name in every[:10]]
    assert keys(tmp_path / "shards/007.tar") == ["007.tar"]
    assert keys(tmp_path / "shards", "webdataset") == every
    assert [entry.key for entry in read_all(tmp_path / "shards/{002..003}.tar")] == ["002.tar/2.jpg", "003.tar/3.jpg"]
    assert (
        keys(tmp_path / "shards/{000..011}.tar")[0] == keys(tmp_path / "shards/*.tar")[0]
    )  # the pattern does not change the keys


def test_folders_of_tars(tmp_path):
    for name in ("x/a b.tar", "x/y/0.tar", "x/.hidden.tar", "x/.trash/1.tar", "x/UPPER.TAR"):
        write_tar(tmp_path / name, [("a.jpg", b"x")])
    (tmp_path / "x/notes.txt").touch()
    assert keys(tmp_path / "x", "webdataset") == ["UPPER.TAR", "a b.tar", "y/0.tar"]
    assert keys(f"{tmp_path}/x/", "webdataset") == ["UPPER.TAR", "a b.tar", "y/0.tar"]
    write_tar(tmp_path / "z/a b.tar", [("a.jpg", b"x")])
    assert keys(tmp_path / "{x,z}", "webdataset") == ["x/UPPER.TAR", "x/a b.tar", "x/y/0.tar", "z/a b.tar"]


def test_a_name_that_looks_like_a_pattern(tmp_path):
    write_tar(tmp_path / "[2020] photos" / "x.tar", [("a.jpg", b"x")])
    assert keys(tmp_path / "[2020] photos/x.tar") == ["x.tar"]
    assert keys(tmp_path / "[2020] photos", "webdataset") == ["x.tar"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("none.tar", r"cannot read .*none.tar: No such file"),
        ("no*.tar", r"no\*.tar matches no files; check the pattern"),
        ("{000..002}.tar", r"cannot read .*001.tar: No such file"),
        ("{005..002}.tar", r"the range \{005..002\} is empty; write \{002..005\}"),
        ("{000,000}.tar", r"two files named '000.tar'"),
        ("empty", r"empty contains no .tar files; check the name or --input-format"),
        ("folder.tar", r"folder.tar contains no .tar files"),
    ],
)
def test_missing_tars(tmp_path, location, message):
    write_tar(tmp_path / "000.tar", [("a.jpg", b"x")])
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(InputError, match=message):
        listed(tmp_path / location, "webdataset")


def test_tars_have_no_image_or_key_columns(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.jpg", b"x")])
    with pytest.raises(InputError, match=r"remove --image-column and --key-column"):
        listed(path, image_column="jpg")


def test_a_shard_has_room_for_every_image_that_a_tar_can_hold(tmp_path):
    path = write_tar(tmp_path / "x.tar", [(f"{number}.jpg", b"") for number in range(200)])
    [file] = listed(path).files
    assert isinstance(file, SourceFile)
    assert len(read_all(path)) == 200 <= webdataset.most_images(file)


def test_room_for_a_tar_of_unknown_size():
    file = SourceFile(key="a.tar", uri="https://host/a.tar", num_bytes=0, mtime_ns=0)
    assert webdataset.most_images(file) == 2**31


def test_what_is_neither_image_nor_text_is_counted(tmp_path):
    members = {"a.jpg": b"a", "a.json": b"[1]", "b.jpg": b"b", "b.json": b"{", "b.cls": b"7", ".c.jpg": b"c"}
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    found, left_out = read_with_notes(tmp_path / "x.tar")
    assert [entry.key for entry in found] == ["x.tar/a.jpg", "x.tar/b.jpg"]
    assert left_out.counts == {Kind.OTHER_SUFFIX: 1, Kind.HIDDEN: 1, Kind.DAMAGED_JSON: 2}
    assert left_out.names[Kind.DAMAGED_JSON] == ["x.tar/a.jpg", "x.tar/b.jpg"]
