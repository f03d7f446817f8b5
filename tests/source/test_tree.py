"""What a walk of a folder leaves out: linked folders, hidden ones, those of file servers, and those of --exclude."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from tests.kit.jobs import Job
from tests.kit.sources import listed, tar_of


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def keys(*args, **settings):
    return [entry.key for entry in listed(*args, **settings)]


# --- linked folders


def test_linked_folders_are_counted_and_named(tmp_path):
    touch(tmp_path, "photos/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "photos/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/more").symlink_to("..")
    (tmp_path / "photos/file.jpg").symlink_to(tmp_path / "elsewhere/b.jpg")
    listing = listed(tmp_path / "photos")
    assert [entry.key for entry in listing] == ["a.jpg", "file.jpg"]
    assert listing.left_out.counts == {"linked_folder": 2}
    assert listing.left_out.names == {"linked_folder": ["linked", "more"]}
    assert "linked folders, which --follow-links would list: 2 (first 'linked')" in listing.left_out.describe()


def test_links_are_followed_on_request(tmp_path):
    touch(tmp_path, "photos/a.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg", "third/d.jpg")
    (tmp_path / "photos/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/on").symlink_to(tmp_path / "third")
    listing = listed(tmp_path / "photos", follow_links=True)
    assert {entry.key: entry.uri for entry in listing} == {
        "a.jpg": (tmp_path / "photos/a.jpg").as_uri(),
        "linked/b.jpg": (tmp_path / "photos/linked/b.jpg").as_uri(),
        "linked/deep/c.jpg": (tmp_path / "photos/linked/deep/c.jpg").as_uri(),
        "linked/on/d.jpg": (tmp_path / "photos/linked/on/d.jpg").as_uri(),
    }
    assert listing.source.follow_links
    assert not listing.left_out


def test_links_in_loops_end(tmp_path):
    touch(tmp_path, "photos/a.jpg", "photos/sub/b.jpg", "other/c.jpg")
    (tmp_path / "photos/sub/up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/sub/self").symlink_to(tmp_path / "photos/sub")
    (tmp_path / "photos/other").symlink_to(tmp_path / "other")
    (tmp_path / "other/back").symlink_to(tmp_path / "photos")
    (tmp_path / "other/self").symlink_to(tmp_path / "other")
    listing = listed(tmp_path / "photos", follow_links=True)
    assert [entry.key for entry in listing] == ["a.jpg", "other/c.jpg", "sub/b.jpg"]
    assert listing.left_out.counts == {"repeated_folder": 4}


def test_the_real_path_of_a_folder_wins_else_the_first_link(tmp_path):
    touch(tmp_path, "photos/z/a.jpg", "outside/b.jpg", "outside/in/c.jpg")
    for name, place in (("a", "photos/z"), ("n", "outside"), ("m", "outside"), ("l", "outside/in")):
        (tmp_path / "photos" / name).symlink_to(tmp_path / place)
    listing = listed(tmp_path / "photos", follow_links=True)
    assert [entry.key for entry in listing] == ["l/c.jpg", "m/b.jpg", "z/a.jpg"]
    assert listing.left_out.names == {"repeated_folder": ["a", "m/in", "n"]}


def test_a_store_made_with_links_can_be_finished_without_them(tmp_path, spec):
    touch(tmp_path, "photos/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "photos/linked").symlink_to(tmp_path / "elsewhere")
    job = Job(tmp_path / "store", spec)
    job.plan(tmp_path / "photos", follow_links=True)
    assert sorted(job.run(tmp_path / "photos")) == ["a.jpg", "linked/b.jpg"]


# --- hidden files and litter


def test_the_folders_of_file_servers_are_left_out_and_counted(tmp_path):
    names = ("@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "x/#recycle/b.jpg", "$RECYCLE.BIN/c.jpg", "__MACOSX/._d.jpg")
    touch(tmp_path, "a.jpg", ".DS_Store", ".thumbs/e.jpg", *names)
    listing = listed(tmp_path)
    assert [entry.key for entry in listing] == ["a.jpg"]
    assert listing.left_out.counts == {"litter": 4, "hidden": 2}
    assert set(listing.left_out.names["litter"]) < {"@eaDir", "x/#recycle", "$RECYCLE.BIN", "__MACOSX"}
    assert keys(tmp_path / "@eaDir") == ["a.jpg/SYNOPHOTO_THUMB_M.jpg"]  # asked for by name


def test_litter_that_a_plan_lists_stays_planned(tmp_path, spec, monkeypatch):
    touch(tmp_path, "photos/@eaDir/a.jpg", "photos/b.jpg")
    job = Job(tmp_path / "store", spec)
    with monkeypatch.context() as earlier:
        earlier.setattr("pipeline.source.formats.tree.LITTER", frozenset())
        job.plan(tmp_path / "photos")
    touch(tmp_path, "photos/@eaDir/new.jpg")
    assert sorted(job.run(tmp_path / "photos")) == ["@eaDir/a.jpg", "b.jpg"]
    assert sorted(job.run(tmp_path / "photos")) == ["@eaDir/a.jpg", "b.jpg"]


# --- --exclude


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*_thumb.*"], ["a.jpg", "b/drafts/c.jpg", "b/raw/d.png", "drafts.jpg"]),
        (["drafts"], ["a.jpg", "a_thumb.jpg", "b/raw/d.png", "drafts.jpg"]),
        (["drafts*"], ["a.jpg", "a_thumb.jpg", "b/raw/d.png"]),
        (["b/raw/"], ["a.jpg", "a_thumb.jpg", "b/drafts/c.jpg", "drafts.jpg"]),
        (["b/*.jpg"], ["a.jpg", "a_thumb.jpg", "b/raw/d.png", "drafts.jpg"]),
        (["/raw"], ["a.jpg", "a_thumb.jpg", "b/drafts/c.jpg", "b/raw/d.png", "drafts.jpg"]),
        (["[!a]*"], ["a.jpg", "a_thumb.jpg"]),
        (["A.jpg", "b", "drafts.jpg"], ["a.jpg", "a_thumb.jpg"]),
    ],
)
def test_patterns_leave_out_by_name_or_by_path(tmp_path, patterns, left):
    touch(tmp_path, "a.jpg", "a_thumb.jpg", "b/drafts/c.jpg", "b/raw/d.png", "drafts.jpg")
    listing = listed(tmp_path, exclude=patterns, key_prefix="p/")
    assert [entry.key for entry in listing] == [f"p/{key}" for key in left]
    assert ("excluded" in listing.left_out.counts) == (len(left) < 5)


def test_everything_can_be_excluded(tmp_path):
    touch(tmp_path, "a.jpg", "b.txt")
    (tmp_path / "list.csv").write_text("path\na.jpg\n")
    (tmp_path / "0.tar").write_bytes(tar_of({"a.jpg": b"A"}))
    for source in (".", "list.csv", "0.tar"):
        with pytest.raises(InputError, match=r"--exclude") as caught:
            listed(tmp_path / source, exclude=["*"])
        assert "\n" not in str(caught.value)


def test_what_is_planned_stays_planned(tmp_path, spec):
    touch(tmp_path, "photos/a.jpg", "photos/drafts/b.jpg")
    job = Job(tmp_path / "store", spec)
    job.plan(tmp_path / "photos")
    touch(tmp_path, "photos/drafts/c.jpg")
    assert sorted(job.run(tmp_path / "photos", exclude=["drafts"])) == ["a.jpg", "drafts/b.jpg"]


def test_rows_of_lists_and_whole_files_are_excluded(tmp_path):
    touch(tmp_path, "in/a.jpg", "in/b.jpg")
    (tmp_path / "list.csv").write_text("path\n../x/in/a.jpg\nin/b.jpg\nin/.c.jpg\n")
    listing = listed(tmp_path / "list.csv", exclude=["b.*"])
    assert [entry.key for entry in listing] == ["../x/in/a.jpg", "in/.c.jpg"]
    assert listing.left_out.counts == {"excluded": 1}
    for name in ("0.tar", "1.tar", "sub/2.tar", ".3.tar", "@eaDir/4.tar"):
        touch(tmp_path, f"tars/{name}")
        (tmp_path / "tars" / name).write_bytes(tar_of({"a.jpg": b"A"}))
    (tmp_path / "tars/link").symlink_to(tmp_path / "in")
    touch(tmp_path, "tars/notes.txt")
    listing = listed(tmp_path / "tars", "webdataset", exclude=["1.*"])
    assert [file.key for file in listing.files] == ["0.tar", "sub/2.tar"]
    assert listing.left_out.counts == {
        "excluded": 1, "hidden": 1, "litter": 1, "linked_folder": 1, "other_format": 1,
    }  # fmt: skip
    assert [file.key for file in listed(tmp_path / "tars/*.tar", exclude=["1.*"]).files] == ["0.tar"]


@pytest.mark.parametrize("pattern", ["b.*", "in/b.*", "2", "/elsewhere/*", "*.com/x", "web/c.jpg"])
def test_rows_with_keys_are_excluded_by_key_and_by_path(tmp_path, pattern):
    rows = ["../x/in/a.jpg\t1", "in/b.jpg\t2", "/elsewhere/b.jpg\t3", "https://h.com/web/c.jpg?id=7\t4"]
    (tmp_path / "list.tsv").write_text("\n".join(["path\tid", *rows]))
    every = listed(tmp_path / "list.tsv", key_column="id")
    listing = listed(tmp_path / "list.tsv", key_column="id", exclude=[pattern])
    left = {"b.*": "14", "in/b.*": "134", "2": "134", "/elsewhere/*": "124", "*.com/x": "1234", "web/c.jpg": "123"}
    found = [entry.key for entry in listing]
    assert found == [*left[pattern]]
    # what a rule leaves out is not gone
    assert [entry.key for entry in every if listing.is_gone(entry.key, entry.uri)] == found


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("a/x.tar", "bx.tar by/z.tar"),
        ("a/*", "bx.tar by/z.tar"),
        ("a", "bx.tar by/z.tar"),
        ("y/*", "ax.tar bx.tar by/z.tar"),
        ("b/y", "ax.tar bx.tar"),
    ],
)
@pytest.mark.parametrize("source", ["{a,b}", "*/**/*.tar"])
def test_files_in_several_folders_are_excluded_by_their_path_from_the_source(tmp_path, source, pattern, left):
    for name in ("a/x.tar", "b/x.tar", "b/y/z.tar"):
        touch(tmp_path, name)
    every = listed(tmp_path / source, "webdataset")
    listing = listed(tmp_path / source, "webdataset", exclude=[pattern])
    expected = [f"{key[0]}/{key[1:]}" for key in left.split()]
    assert [file.key for file in listing.files] == expected
    assert listing.left_out.counts.get("excluded", 0) == len(every.files) - len(expected)
    # elsewhere, so that no file of that name is found
    assert [file.key for file in every.files if listing.is_gone(file.key, "file:///none")] == expected


def test_tars_in_linked_folders(tmp_path, spec):
    touch(tmp_path, "real/0.parquet", "other/1.parquet")
    for name in ("real/0", "other/1"):
        pq.write_table(pa.table({"image": [name.encode()]}), tmp_path / f"{name}.parquet")
    (tmp_path / "real/linked").symlink_to(tmp_path / "other")
    listing = listed(tmp_path / "real", "parquet", follow_links=True)
    assert [file.key for file in listing.files] == ["0.parquet", "linked/1.parquet"]
    job = Job(tmp_path / "store", spec)
    job.plan(tmp_path / "real", source_format="parquet", follow_links=True)
    assert sorted(job.run(tmp_path / "real", source_format="parquet")) == ["0.parquet/0", "linked/1.parquet/0"]


def test_patterns_with_two_stars_are_walks(tmp_path):
    for name in ("sets/a/0.tar", "sets/1.tar", "other/2.tar", "sets/day1/x/3.tar", "sets/.h/4.tar"):
        touch(tmp_path, name)
        (tmp_path / name).write_bytes(tar_of({"a.jpg": b"A"}))
    touch(tmp_path, "sets/day1/notes.txt")
    (tmp_path / "sets/a/up").symlink_to("..")  # with two links, Python's own glob would not end
    (tmp_path / "sets/0-a").symlink_to("a")
    (tmp_path / "sets/out").symlink_to("../other")
    (tmp_path / "sets/link.tar").symlink_to("1.tar")
    listing = listed(tmp_path / "sets/**/*.tar")
    assert [file.key for file in listing.files] == ["1.tar", "a/0.tar", "day1/x/3.tar", "link.tar"]
    assert listing.left_out.counts == {"linked_folder": 3, "hidden": 1}
    listing = listed(tmp_path / "sets/**/*.tar", follow_links=True)
    assert [file.key for file in listing.files] == ["1.tar", "a/0.tar", "day1/x/3.tar", "link.tar", "out/2.tar"]
    assert listing.left_out.counts == {"repeated_folder": 2, "hidden": 1}
    for pattern, keys in (
        ("sets/**/day*", ["day1/x/3.tar"]),
        ("**/[ad]*/**/?.tar", ["sets/a/0.tar", "sets/day1/x/3.tar"]),
        ("{sets,other}/**/2.tar", None),
    ):
        if keys is None:
            with pytest.raises(InputError, match=r"sets/\*\*/2.tar matches no files"):
                listed(tmp_path / pattern, "webdataset")
        else:
            assert [file.key for file in listed(tmp_path / pattern, "webdataset").files] == keys


def test_names_that_are_not_utf8_match_as_text(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(folder)  # noqa: PTH102
    touch(tmp_path, "a.jpg")
    touch(tmp_path / folder, "b.jpg")
    assert keys(tmp_path) == ["a.jpg", "caf\\xe9/b.jpg"]
    assert keys(tmp_path, exclude=["caf*"]) == ["a.jpg"]
