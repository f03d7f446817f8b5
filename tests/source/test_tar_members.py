"""Single members of a tar: found again without reading the tar, and right after it was replaced."""

import pytest

from pipeline.source.formats import webdataset
from pipeline.source.reading import read_image
from tests.kit.sources import tar_of

MEMBERS = {f"{number:03d}.jpg": bytes([number]) * 700 for number in range(100)}
LONG = "a" * 150 + ".jpg"


@pytest.fixture
def archive(tmp_path):
    """A tar of many members: its path, and how to read one."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of({LONG: b"long", **MEMBERS}))
    return path, lambda name: read_image(f"{path.as_uri()}#member={name}")


def test_only_the_first_member_needs_the_headers_of_all(archive, monkeypatch):
    _, read = archive
    scans = []
    getmember = webdataset.tarfile.TarFile.getmember
    monkeypatch.setattr(
        webdataset.tarfile.TarFile, "getmember", lambda self, name: scans.append(name) or getmember(self, name)
    )
    names = ["050.jpg", "099.jpg", "000.jpg", LONG]
    assert [read(name) for name in names] == [{LONG: b"long", **MEMBERS}[name] for name in names]
    assert scans == ["050.jpg"]


@pytest.mark.parametrize(
    "members",
    [
        {LONG: b"long", **dict(reversed(MEMBERS.items()))},
        {"first.jpg": b"x" * 5000, **MEMBERS},
        {name: data + b"more" for name, data in MEMBERS.items()},
        {"050.jpg": MEMBERS["050.jpg"]},
    ],
    ids=["other order", "one more", "other content", "only one"],
)
def test_a_tar_that_was_replaced_gives_what_it_holds_now(archive, members):
    path, read = archive
    assert read("050.jpg") == MEMBERS["050.jpg"]
    path.write_bytes(tar_of(members))
    assert read("050.jpg") == members["050.jpg"]
    assert read("050.jpg") == members["050.jpg"]


def test_a_member_that_is_gone_or_damaged_says_so(archive):
    path, read = archive
    read("050.jpg")
    data = path.read_bytes()
    path.write_bytes(tar_of({"other.jpg": b"x"}))
    with pytest.raises(OSError, match=r"cannot read member '050\.jpg'"):
        read("050.jpg")
    path.write_bytes(data)
    read("099.jpg")
    path.write_bytes(data[: data.index(MEMBERS["099.jpg"]) + 10])
    with pytest.raises(OSError, match=r"cannot read member '099\.jpg'"):
        read("099.jpg")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read("099.jpg")
