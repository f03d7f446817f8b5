"""Links in tars: images and texts that are stored as hard or symbolic links to other members."""

import io
import subprocess
import tarfile

import pytest

from pipeline.source.formats import webdataset
from pipeline.source.left_out import Kind, ReadNotes
from pipeline.source.reading import read_file, read_image
from tests.kit.sources import listed
from tests.kit.web_server import Handler, serving


def tar_with_links(*members):
    """The bytes of a tar of (name, bytes), (name, "-> target") for symbolic and (name, "== target") for hard links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
            elif content == "folder":
                info.type = tarfile.DIRTYPE
            else:
                kind, _, info.linkname = content.partition(" ")
                info.type = {"->": tarfile.SYMTYPE, "==": tarfile.LNKTYPE}[kind]
            archive.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    """Reads a tar of members and links: the images, and the notes on what else it holds."""

    def read_members(*members, **spec):
        (tmp_path / "x.tar").write_bytes(tar_with_links(*members))
        listing, notes = listed(tmp_path / "x.tar", **spec), ReadNotes()
        return list(read_file(listing.files[0], listing.source, 0, 0, notes)), notes

    return read_members


def rows(found):
    return [(entry.key.removeprefix("x.tar/"), entry.data, entry.num_bytes) for entry in found]


@pytest.mark.parametrize("kind", ["->", "=="])
def test_a_link_is_a_row_at_its_place(read, kind):
    found, notes = read(
        ("a.jpg", b"A" * 600), ("b.jpg", f"{kind} a.jpg"), ("c.jpg", f"{kind} d.jpg"), ("d.jpg", b"D"),
        ("e.png", f"{kind} content/1f3a"), ("content/1f3a", b"stored by its hash"),
    )  # fmt: skip
    assert rows(found) == [
        ("a.jpg", b"A" * 600, 600), ("b.jpg", b"A" * 600, 600), ("c.jpg", b"D", 1), ("d.jpg", b"D", 1),
        ("e.png", b"stored by its hash", 18),
    ]  # fmt: skip
    assert notes.left_out.counts == {Kind.OTHER_SUFFIX: 1}  # the stored file itself, whose name is no image's
    assert notes.num_links == 3
    assert [read_image(entry.uri) for entry in found] == [entry.data for entry in found]


def test_links_to_links_and_through_linked_folders(read):
    found, notes = read(
        ("one", "folder"), ("one/a.jpg", b"A"), ("two/b.jpg", "-> ../one/a.jpg"), ("./two/c.jpg", "== ./two/b.jpg"),
        ("latest", "-> one"), ("d.jpg", "-> latest/a.jpg"), ("./e.jpg", "-> ./one/../d.jpg"),
    )  # fmt: skip
    assert rows(found) == [(name, b"A", 1) for name in ("one/a.jpg", "two/b.jpg", "./two/c.jpg", "d.jpg", "./e.jpg")]
    assert not notes.left_out
    assert [read_image(entry.uri) for entry in found] == [b"A"] * 5


def test_texts_can_be_links(read):
    found, _ = read(
        ("a.jpg", b"A"), ("a.json", b'{"license": "CC0"}'), ("a.txt", b"of both"),
        ("b.jpg", b"B"), ("b.json", "== a.json"), ("b.txt", "-> a.txt"),
        columns={"license": ""},
    )  # fmt: skip
    assert [(entry.caption, entry.extra) for entry in found] == [("of both", {"license": "CC0"})] * 2


def test_links_that_lead_to_no_file_of_the_tar_are_counted_by_kind(read, tmp_path):
    found, notes = read(
        ("d/a.jpg", "-> /etc/passwd"), ("d/b.jpg", "-> ../../b.jpg"), ("c.jpg", "-> none.jpg"), ("d.jpg", "== no.jpg"),
        ("folder.d", "folder"), ("e.jpg", "-> folder.d"), ("f.jpg", "-> g.jpg"), ("g.jpg", "-> f.jpg"),
        ("h.jpg", "-> h.jpg"), ("i.jpg", "== i.jpg"), ("j.txt", "-> j.json"), ("k.jpg", b"K"), ("l.cls", "-> none"),
    )  # fmt: skip
    assert rows(found) == [("k.jpg", b"K", 1)]
    assert notes.left_out.counts == {Kind.LINK_OUT_OF_TAR: 2, Kind.DANGLING_LINK: 4, Kind.LINK_IN_LOOP: 4}
    assert notes.left_out.names[Kind.LINK_OUT_OF_TAR] == ["x.tar/d/a.jpg", "x.tar/d/b.jpg"]
    assert notes.left_out.names[Kind.LINK_IN_LOOP] == ["x.tar/f.jpg", "x.tar/g.jpg", "x.tar/h.jpg"]
    assert "links in tars to a place outside the tar: 2 (first 'x.tar/d/a.jpg')" in notes.left_out.describe()
    for name in ("d/a.jpg", "c.jpg", "e.jpg", "f.jpg", "h.jpg"):
        with pytest.raises(OSError, match=rf"cannot read member '{name}': .*leads to no file"):
            read_image(f"{(tmp_path / 'x.tar').as_uri()}#member={name}")


def test_a_file_that_was_given_to_tar_twice_is_one_row(read, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"A")
    (tmp_path / "b.jpg").hardlink_to(tmp_path / "a.jpg")
    subprocess.run(["tar", "cf", "y.tar", "a.jpg", "b.jpg", "a.jpg"], cwd=tmp_path, check=True)
    with tarfile.open(tmp_path / "y.tar") as archive:
        assert [member.islnk() for member in archive] == [False, True, True]
    listing, notes = listed(tmp_path / "y.tar"), ReadNotes()
    found = list(read_file(listing.files[0], listing.source, 0, 0, notes))
    assert [(entry.key, entry.data) for entry in found] == [("y.tar/a.jpg", b"A"), ("y.tar/b.jpg", b"A")]
    assert not notes.left_out
    assert read_image(found[0].uri) == b"A"


def test_targets_beyond_the_limit_are_not_read(read, monkeypatch):
    monkeypatch.setattr(webdataset, "MAX_FILE_BYTES", 100)
    found, _ = read(("a.jpg", "-> b.jpg"), ("b.jpg", b"B" * 101))
    assert rows(found) == [("a.jpg", b"", 101), ("b.jpg", b"", 101)]
    with pytest.raises(OSError, match=r"101 bytes, the limit is 100"):
        read_image(found[0].uri)


def test_tars_without_links_are_read_once(read, monkeypatch):
    num_opened = []
    open_stream = webdataset.open_stream
    monkeypatch.setattr("pipeline.source.formats.tar.links.open_stream", lambda uri: num_opened.append(uri))
    assert len(read(("a.jpg", b"A"), ("a.cls", "-> a.jpg"))[0]) == 1
    assert not num_opened
    assert webdataset.open_stream is open_stream


DATA = tar_with_links(
    ("first.jpg", "-> last.jpg"), *((f"{number:04d}.jpg", bytes([number]) * 50_000) for number in range(200)),
    ("again.jpg", "== 0000.jpg"), ("last.jpg", b"L"),
)  # fmt: skip


class FromTheStart(Handler):
    """A site that cannot send a part of a file, and says so."""

    def look(self, _):
        return 200, DATA, ("Accept-Ranges", "none")


def test_links_are_followed_on_servers_that_send_files_only_from_the_start():
    with serving(FromTheStart) as site:
        listing = listed(f"{site}/x.tar")
        found = {entry.key: entry.data for entry in read_file(listing.files[0], listing.source, 0, 0)}
    assert len(found) == 203
    assert (found["x.tar/first.jpg"], found["x.tar/again.jpg"]) == (b"L", b"\0" * 50_000)
