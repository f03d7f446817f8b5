"""Listing a source; sorting and joining more than fits in memory."""

import os
import random
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, StoreError
from pipeline.source.entry import ImageEntry, Source
from pipeline.source.formats.captions import join_captions
from pipeline.source.reading import read_image
from pipeline.source.sorting import Sorted
from tests.kit.sources import listed


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def write_captions(tmp_path, *lines):
    path = tmp_path / "captions.tsv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# --- sorting


@pytest.mark.parametrize("run_length", [1, 7, 999, 1000, 1001, 2500, 100_000])
@pytest.mark.parametrize("count", [0, 1, 7, 2500])
def test_sorted_equals_pythons_own_sort(run_length, count):
    choose = random.Random(count)
    items = [(choose.randrange(40), number) for number in range(count)]  # many equal keys, to check stability
    result = Sorted(iter(items), lambda item: item[0], run_length)
    assert len(result) == count
    assert list(result) == sorted(items, key=lambda item: item[0])
    assert list(result) == list(result)


@pytest.mark.parametrize("run_length", [10, 10_000])
def test_two_iterations_at_once_are_independent(run_length):
    result = Sorted(iter(range(3000, 0, -1)), lambda item: item, run_length)
    one, other = iter(result), iter(result)
    seen_one, seen_other = [next(one) for _ in range(1500)], []
    for _ in range(1500):
        seen_other.append(next(other))
        seen_one.append(next(one))
    assert seen_one == list(range(1, 3001))
    assert seen_other + list(other) == list(range(1, 3001))


def test_memory_does_not_grow_with_the_number_of_items():
    def entries(count):
        return (ImageEntry(f"{n * 7919 % count:09d}.jpg", f"file:///a/folder/{n:09d}.jpg", n, n) for n in range(count))

    peaks = []
    for count in (12_000, 120_000):
        tracemalloc.start()
        result = Sorted(entries(count), lambda entry: entry.key, 4_000)
        assert sum(1 for _ in result) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # a few entries of each run are in memory, with 3 and 30 runs; all entries would take 30 MiB
    assert peaks[1] < 6 * peaks[0]
    assert peaks[1] < 15 * 2**20


def test_a_full_disk_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(StoreError, match=r"cannot sort 10 items in .*/gone: No such file .*set TMPDIR to a larger"):
        Sorted(iter(range(30)), lambda item: item, 10)


# --- folders


def test_a_folder(tmp_path, monkeypatch):
    touch(tmp_path, "x/b.jpg", "x/a/c.PNG", "x/notes.txt", "x/.hidden/d.jpg", "x/é #%.webp")
    listing = listed(tmp_path / "x")
    assert listing.source == Source(location=str(tmp_path / "x"), format="folder")
    assert [entry.key for entry in listing] == ["a/c.PNG", "b.jpg", "é #%.webp"]
    assert [entry.uri for entry in listing] == [
        (tmp_path / name).as_uri() for name in ("x/a/c.PNG", "x/b.jpg", "x/é #%.webp")
    ]
    assert (listing.num_images, listing.left_out.counts) == (3, {"other_suffix": 1, "hidden": 1})
    assert (
        listing.num_bytes
        == sum(entry.num_bytes for entry in listing)
        == sum(len(name.encode()) for name in ("x/b.jpg", "x/a/c.PNG", "x/é #%.webp"))
    )
    monkeypatch.chdir(tmp_path)
    for name in ("x", "x/", "./x", "../" + tmp_path.name + "/x", (tmp_path / "x").as_uri()):
        again = listed(name)
        assert again.source == listing.source
        assert list(again) == list(listing)
    assert [entry.key for entry in listed("x", key_prefix="p/")] == ["p/a/c.PNG", "p/b.jpg", "p/é #%.webp"]


def test_dangling_links_are_listed_with_size_zero(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    assert [(entry.key, entry.num_bytes) for entry in listed(tmp_path)] == [
        ("a.jpg", 5), ("dangling.jpg", 0), ("loop.jpg", 0),
    ]  # fmt: skip


def test_an_unreadable_folder(tmp_path):
    touch(tmp_path, "x/a.jpg", "x/locked/b.jpg")
    (tmp_path / "x/locked").chmod(0)
    if os.access(tmp_path / "x/locked", os.R_OK):
        pytest.skip("root may read every folder")
    for source_format in ("folder", "webdataset"):
        with pytest.raises(InputError, match=r"cannot list .*locked: Permission denied; fix its permissions"):
            listed(tmp_path / "x", source_format=source_format)
    (tmp_path / "x/locked").chmod(0o700)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", r"none does not exist; pass a folder"),
        ("a.jpg", r"a.jpg is not a folder"),
        (
            "texts",
            r"contains no images: no file in it .* \(left out: files without an image suffix: 1 \(first 'a.txt'\)\)",
        ),
        ("codes", r"first '\.a\\nerror: fake'\).*first 'no\\x1b\[31mte\.txt'\)"),
    ],
)
def test_folders_that_are_refused(tmp_path, name, message):
    touch(tmp_path, "a.jpg", "texts/a.txt", "codes/.a\nerror: fake", "codes/no\x1b[31mte.txt")
    with pytest.raises(InputError, match=message):
        listed(tmp_path / name)


@pytest.mark.parametrize(
    "spec", [{"image_column": "a"}, {"key_column": "a"}, {"caption_column": "a"}, {"columns": {"a": ""}}]
)
def test_a_folder_has_no_columns(tmp_path, spec):
    touch(tmp_path, "a.jpg")
    with pytest.raises(InputError, match=r"has no columns; .*pass captions of a folder with --captions"):
        listed(tmp_path, **spec)


# --- captions


def test_captions_of_a_folder(tmp_path):
    touch(tmp_path, "x/a.jpg", "x/b.jpg", "x/d/c.jpg")
    path = write_captions(tmp_path, "d/c.jpg\tlast", "b.jpg\tfirst of b", "b.jpg\tsecond of b")
    listing = listed(tmp_path / "x", captions=path)
    for _ in range(2):
        assert {entry.key: entry.caption for entry in listing} == {
            "a.jpg": None, "b.jpg": "first of b", "d/c.jpg": "last",
        }  # fmt: skip
    prefixed = listed(tmp_path / "x", captions=path, key_prefix="p/")
    assert [entry.caption for entry in prefixed] == [None, "first of b", "last"]


@pytest.mark.parametrize("stranger", ["0.jpg", "aa.jpg", "z.jpg"])
def test_a_caption_without_an_image_is_refused(tmp_path, stranger):
    touch(tmp_path, "x/a.jpg", "x/b.jpg")
    path = write_captions(tmp_path, "b.jpg\tyes", f"{stranger}\tno", f"{stranger}\tno again", "a.jpg\tyes")
    with pytest.raises(InputError, match=rf"1 captioned images are not in the source, first '{stranger}'"):
        list(listed(tmp_path / "x", captions=path))


def test_captions_are_joined_without_holding_either_side_in_memory():
    count = 20_000
    choose = random.Random(3)
    has_caption = [choose.random() < 0.5 for _ in range(count)]
    entries = (ImageEntry(f"{n:06d}", "", 0, 0) for n in range(count))
    captions = (
        (f"{n:06d}", f"{n} {place}") for n in range(count) if has_caption[n] for place in range(choose.choice((1, 3)))
    )
    tracemalloc.start()
    for number, entry in enumerate(join_captions(entries, captions)):
        assert entry.caption == (f"{number} 0" if has_caption[number] else None)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    assert number == count - 1
    strangers = ((f"{n:06d}x", "no") for n in range(count + 5))
    with pytest.raises(InputError, match=rf"{count + 5} captioned images are not in the source, first '000000x'"):
        list(join_captions((ImageEntry(f"{n:06d}", "", 0, 0) for n in range(count)), strangers))


def test_other_sources_have_their_own_captions(tmp_path):
    path = write_captions(tmp_path, "a.jpg\tx")
    touch(tmp_path, "list.csv")
    for name, kind in (("list.csv", "list"), ("x.tar", "webdataset"), ("x.parquet", "parquet")):
        with pytest.raises(InputError, match=rf"--captions is for folders only; a {kind} source"):
            listed(tmp_path / name, captions=path)


def test_empty_captions(tmp_path):
    touch(tmp_path, "x/a.jpg")
    with pytest.raises(InputError, match=r"captions file .*captions.tsv is empty"):
        listed(tmp_path / "x", captions=write_captions(tmp_path))


# --- which format


def test_the_name_determines_the_format_unless_one_is_given(tmp_path):
    touch(tmp_path, "x/a.jpg", "x/list.csv", "x/0.tar")
    (tmp_path / "list.csv").write_text("path\nx/a.jpg\n")
    (tmp_path / "list.txt.tsv").write_text("path\nx/a.jpg\n")
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "x/1.parquet")
    assert listed(tmp_path / "x").source.format == "folder"
    assert listed(tmp_path / "list.csv").source.format == "list"
    assert listed(tmp_path / "list.txt.tsv").source.format == "list"
    assert listed(tmp_path / "x/0.tar").source.format == "webdataset"
    assert listed(tmp_path / "x/*.parquet").source.format == "parquet"
    for source_format, key in (("webdataset", "0.tar"), ("parquet", "1.parquet")):
        listing = listed(tmp_path / "x", source_format=source_format)
        assert (listing.source.format, [file.key for file in listing.files]) == (source_format, [key])
        assert list(listing) == []
    with pytest.raises(InputError, match=r"cannot read list .*x: expected a name that ends in one of .csv .tsv"):
        listed(tmp_path / "x", source_format="list")


def test_a_location_that_is_not_utf8_is_recorded_as_text(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"A")
    with tarfile.open(folder / "x.tar", "w") as archive:
        archive.add(folder / "a.jpg", "a.jpg")
    for listing in (listed(folder), listed(folder / "x.tar"), listed(folder / "*.tar")):
        assert "caf\\xe9" in listing.source.location
        Source.model_validate_json(listing.source.model_dump_json())
    [entry] = listed(folder)
    assert read_image(entry.uri) == b"A"
