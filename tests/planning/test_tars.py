"""Plans of tars: named columns that no image has, and links in stores that were made before links were read."""

import json
import os
import tarfile

import pytest

from pipeline.errors import InputError, StoreError
from pipeline.planning.tars import check_tars, first_look, unseen_columns
from pipeline.source.formats import webdataset
from pipeline.source.left_out import Kind, ReadNotes
from pipeline.source.reading import read_file
from pipeline.store.commit_markers import read_marker
from pipeline.store.tombstones import DELETED, add_tombstones
from pipeline.store.view import StoreView
from tests.kit.damage import rewrite
from tests.kit.jobs import Job, hashed
from tests.kit.sources import listed, tar_of


@pytest.fixture
def job(tmp_path, spec):
    return Job(tmp_path / "store", spec)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tars").mkdir()
    return tmp_path / "tars"


# --- named columns


def write(path, *fields):
    """A tar of images, each with these fields as its .json."""
    members = {}
    for number, found in enumerate(fields):
        members[f"{number:04d}.jpg"] = b"%d" % number
        members[f"{number:04d}.json"] = json.dumps(found).encode()
    path.write_bytes(tar_of(members))


def warnings_of(location, **spec):
    found = []
    first_look(listed(location, **spec), found.append)
    return found


def test_named_columns_that_the_first_samples_lack_are_a_warning(folder):
    write(folder / "0.tar", {"license": None, "alt": "x"}, {"views": 3})
    write(folder / "1.tar", {"later": 1})
    named = {"columns": dict.fromkeys(("license", "lisence", "views", "later"), "")}
    found = warnings_of(folder / "*.tar", **named, caption_column="caption")
    assert [text.split(":")[0] for text in found] == [
        "--columns lisence", "--columns later", "--caption-column caption"
    ]  # fmt: skip
    assert f"of the first 2 images of {(folder / '0.tar').as_uri()} has this field" in found[0]
    assert warnings_of(folder / "*.tar", columns={"license": ""}, caption_column="alt") == []
    assert warnings_of(folder / "*.tar") == []  # `caption` is only the usual name


def test_only_the_first_hundred_samples_are_read(folder):
    write(folder / "0.tar", *[{}] * 99, {"at last": 1})
    assert warnings_of(folder / "0.tar", columns={"at last": ""}) == []
    write(folder / "0.tar", *[{}] * 100, {"at last": 1})
    [warning] = warnings_of(folder / "0.tar", columns={"at last": ""})
    assert "first 100 images" in warning


def test_a_first_tar_that_cannot_be_read_or_has_no_images_is_no_warning(folder):
    (folder / "0.tar").write_bytes(b"damaged")
    assert warnings_of(folder / "0.tar", columns={"x": ""}) == []
    (folder / "0.tar").write_bytes(tar_of({}))
    assert warnings_of(folder / "0.tar", columns={"x": ""}) == []


def test_columns_are_unseen_only_if_every_shard_knows(job, folder):
    write(folder / "0.tar", {"license": None})
    write(folder / "1.tar", {"views": 3})
    named = {"columns": dict.fromkeys(("license", "lisence", "views"), "")}
    job.run(folder / "*.tar", **named, caption_column="alt")
    listing = listed(folder / "*.tar", **named, caption_column="alt")

    def unseen():
        return unseen_columns(StoreView.now(job.store, job.record), listing)

    assert unseen() == {}  # as in markers of earlier versions, nothing is known
    rewrite(job.store, 0, columns_seen=["license"])
    assert unseen() == {}
    rewrite(job.store, 1, columns_seen=["views"])
    assert unseen() == {"lisence": "--columns", "alt": "--caption-column"}
    with pytest.raises(InputError, match=r"^--columns lisence, --caption-column alt: no image .* another --out"):
        check_tars(StoreView.now(job.store, job.record), listing)
    only_one = listed(folder / "0.tar", **named)
    assert unseen_columns(StoreView.now(job.store, job.record), only_one) == {
        "lisence": "--columns", "views": "--columns"
    }  # fmt: skip
    job.store.marker_path(1).unlink()
    assert unseen() == {}


def test_a_source_without_any_image_is_refused_at_the_end(job, folder):
    write(folder / "0.tar")
    write(folder / "1.tar")

    def check():
        check_tars(StoreView.now(job.store, job.record), listed(folder / "*.tar"))

    job.plan(folder / "*.tar")
    check()  # nothing is known yet
    job.commit()
    with pytest.raises(InputError, match=r"\*.tar contains no images; name tars .* --dereference"):
        check()
    rewrite(job.store, 0, left_out={"counts": {Kind.LINK_OUT_OF_TAR: 3}, "names": {Kind.LINK_OUT_OF_TAR: ["0.tar/a"]}})
    with pytest.raises(
        InputError, match=r"no images \(links in tars to a place outside the tar: 3 \(first '0.tar/a'\)\);"
    ):
        check()
    write(folder / "2.tar", {})
    job.run(folder / "*.tar")
    check()


def test_the_columns_seen_are_those_of_images(folder):
    members = {
        "a.jpg": b"A",
        "a.json": b'{"license": null}',
        "a.pose.json": b'{"views": 1}',
        "b.json": b'{"height": 1}',
    }
    (folder / "0.tar").write_bytes(tar_of(members))
    listing, notes = listed(folder / "0.tar", columns=dict.fromkeys(("license", "views", "height"), "")), ReadNotes()
    [entry] = read_file(listing.files[0], listing.source, 0, 0, notes)
    assert notes.columns_seen == {"license"}
    assert entry.extra == {"license": None, "views": None, "height": None}


def test_a_column_named_later_does_not_change_what_is_planned(job, folder):
    write(folder / "0.tar", {"caption": "x"})
    job.run(folder / "0.tar")
    last = job.record
    assert job.plan(folder / "0.tar", caption_column="caption") == last


# --- links in earlier stores


def write_with_links(path):
    with tarfile.open(path, "w") as archive:
        for name in ("0.jpg", "1.jpg", "3.jpg", "5.jpg"):
            (path.parent / name).write_bytes(f"image {name}".encode())
        (path.parent / "2.jpg").symlink_to("0.jpg")
        (path.parent / "4.jpg").hardlink_to(path.parent / "0.jpg")
        for number in range(6):
            archive.add(path.parent / f"{number}.jpg", f"{number}.jpg")


@pytest.fixture
def earlier(monkeypatch):
    """Runs of an earlier version, which passed over links."""

    class Earlier:
        def __enter__(self):
            self.patch = pytest.MonkeyPatch()
            self.patch.setattr(webdataset, "is_link", lambda member: False)

        def __exit__(self, *_):
            self.patch.undo()

    return Earlier()


def test_contents_of_an_earlier_store_are_compared_by_key(job, folder, earlier):
    path = folder / "x.tar"
    write_with_links(path)
    with earlier:
        job.run(path)
    assert list(job.living) == [f"x.tar/{number}.jpg" for number in (0, 1, 3, 5)]
    last = job.record
    assert job.plan(path, check=True) == last
    replace_in_place(path, b"image 5.jpg", b"IMAGE 5.jpg")
    with pytest.raises(StoreError, match=r"changed since they were planned .*, first 'x.tar'"):
        job.plan(path, check=True)
    job.run(path, "embed", check=True)
    assert len(job.living) == 6
    assert job.living["x.tar/4.jpg"] == job.living["x.tar/0.jpg"] == hashed(b"image 0.jpg")


def test_contents_of_links_and_deleted_rows_are_compared(job, folder):
    path = folder / "x.tar"
    write_with_links(path)
    job.run(path)
    add_tombstones(job.store, [2], DELETED)
    assert job.plan(path, check=True) == job.record
    assert read_marker(job.store, 0).num_images == 6


def test_an_image_that_was_renamed_in_place_is_a_change(job, folder):
    path = folder / "x.tar"
    write(path, {}, {})
    job.run(path)
    data = tar_of({"0000.jpg": b"0", "0000.json": b"{}", "0002.jpg": b"1", "0002.json": b"{}"})
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(StoreError, match="changed since they were planned"):
        job.plan(path, check=True)


def replace_in_place(path, old, new):
    """Change bytes but keep size and time."""
    status, data = path.stat(), path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
