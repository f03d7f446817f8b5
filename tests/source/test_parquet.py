"""Parquet files of images: which types columns can have, which rows are read, and what is refused."""

import datetime
import os
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.planning.shards import cut_files
from pipeline.source import reading
from pipeline.source.reading import read_file, read_image
from pipeline.workers.shard import _check
from tests.kit.sources import listed


@pytest.fixture
def write(tmp_path):
    """Writes a file with the given columns, by default `data.parquet`. Options go to pyarrow."""

    def write_file(columns, name="data.parquet", **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
        return path

    return write_file


def read_all(location, capacity=10_000, **spec):
    listing = listed(location, **spec)
    shards = cut_files(listing.files, listing.source, capacity, 0, 0)
    return [
        entry
        for shard in shards
        for entry in read_file(shard.file, listing.source, shard.start, shard.start + shard.num_images)
    ]


IMAGES = [b"one", b"two", None, b"", b"five" * 100]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(IMAGES, pa.binary()),
        pa.array(IMAGES, pa.large_binary()),
        pa.array(IMAGES, pa.binary_view()),
        pa.array([{"bytes": data, "path": None} for data in IMAGES]),
        pa.array([{"bytes": data} for data in IMAGES]),
        pa.array(IMAGES, pa.binary()).dictionary_encode(),
    ],
    ids=["binary", "large_binary", "binary_view", "struct", "struct of bytes", "dictionary"],
)
def test_columns_of_bytes(write, column):
    path = write({"image": column})
    found = read_all(path)
    assert [entry.key for entry in found] == [f"data.parquet/{number}" for number in range(5)]
    assert [entry.data for entry in found] == [data or b"" for data in IMAGES]
    assert [entry.num_bytes for entry in found] == [len(data or b"") for data in IMAGES]
    assert [entry.uri for entry in found] == [f"{path.as_uri()}#column=image&row={number}" for number in range(5)]
    assert [read_image(entry.uri) for entry in found] == [data or b"" for data in IMAGES]


def test_columns_of_fixed_size_bytes(write):
    path = write({"image": pa.array([b"abcd", b"efgh"], pa.binary(4))})
    assert [entry.data for entry in read_all(path)] == [b"abcd", b"efgh"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_columns_of_paths(write, tmp_path, kind):
    (tmp_path / "sets/photos").mkdir(parents=True)
    (tmp_path / "sets/photos/a #1.jpg").write_bytes(b"A")
    names = ["photos/a #1.jpg", f"{tmp_path}/sets/photos/a #1.jpg", "s3://bucket/a b.jpg", "https://host/c.jpg?d=1"]
    path = write({"filepath": pa.array([*names, None], kind)}, "sets/data.parquet")
    found = read_all(path)
    where = (tmp_path / "sets/photos/a #1.jpg").as_uri()
    assert [entry.uri for entry in found] == [where, where, *names[2:], f"{path.as_uri()}#column=filepath&row=4"]
    assert [entry.data for entry in found] == [None, None, None, None, b""]
    assert read_image(found[0].uri) == b"A"
    assert found[0].key == "data.parquet/0"


def test_bytes_take_precedence_over_a_path(write, tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"of the file")
    rows = [
        {"bytes": b"of the cell", "path": "b.jpg"},
        {"bytes": None, "path": "b.jpg"},
        {"bytes": None, "path": None},
        None,
    ]
    found = read_all(write({"image": rows}))
    assert [entry.data for entry in found] == [b"of the cell", None, b"", b""]
    assert [read_image(entry.uri) for entry in found] == [b"of the cell", b"of the file", b"", b""]


def test_usual_column_names_are_found_and_others_can_be_given(write):
    path = write({"pict#ure & co": [b"x"], "image_path": ["a.jpg"], "jpg": [b"y"], "text": ["t"], "alt": ["a"]})
    spec = listed(path).source
    assert (spec.image_column, spec.key_column, spec.caption_column) == ("jpg", None, "text")
    [entry] = read_all(path, image_column="pict#ure & co", caption_column="alt")
    assert (entry.data, entry.caption) == (b"x", "a")
    assert read_image(entry.uri) == b"x"


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a dog", None, "", "en hund å"]),
        pa.array(["a dog", None, "", "en hund å"]).dictionary_encode(),
        pa.array([["a dog", "a hound"], None, [], ["en hund å"]]),
        pa.array([["a dog"], [None, " "], [""], [None, "", "en hund å"]], pa.large_list(pa.large_string())),
    ],
)
def test_captions(write, column):
    found = read_all(write({"image": [b""] * 4, "caption": column}))
    assert [entry.caption for entry in found] == ["a dog", None, None, "en hund å"]


def test_columns_carried_along_keep_their_types(write):
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9, 123456)
    ns = 1_714_979_289_123_456_789
    columns = {
        "whole": pa.array([2**62, None]),
        "small": pa.array([255, 0], pa.uint8()),
        "real": pa.array([0.1, float("nan")]),
        "yes": pa.array([True, None]),
        "word": pa.array(["å", None]),
        "long_word": pa.array(["x", "y"], pa.large_string()),
        "raw": pa.array([b"\xff", None]),
        "kind": pa.array(["cat", None]).dictionary_encode(),
        "day": pa.array([moment.date(), None]),
        "time_us": pa.array([moment, None], pa.timestamp("us")),
        "time_ns": pa.array([ns, None], pa.timestamp("ns")),
        "time_zone": pa.array([ns // 1000, None], pa.timestamp("us", "Europe/Stockholm")),
        "clock": pa.array([1, None], pa.time64("ns")),
        "took": pa.array([5, None], pa.duration("ns")),
    }
    path = write({"image": [b"a", b"b"], **columns})
    found = read_all(path, columns=dict.fromkeys(columns, ""))
    kinds = listed(path, columns=dict.fromkeys(columns, "")).source.columns
    for name, column in columns.items():
        expected = column.dictionary_decode() if name == "kind" else column
        if name == "time_zone":  # the moment is kept, as UTC
            expected = expected.cast(pa.timestamp("us"))
        # as it is written to a part
        carried = pa.array([entry.extra[name] for entry in found], pa.type_for_alias(kinds[name]))
        assert (carried.type, str(carried)) == (expected.type, str(expected)), (
            name
        )  # as text, because NaN does not equal NaN


@pytest.mark.parametrize(
    ("columns", "spec", "message"),
    [
        ({"x": [1], "y": [2]}, {}, r"has no image column with a usual name; .* --image-column with one of x, y"),
        ({"image": [b""], "y": [2]}, {"image_column": "z"}, r"no column 'z'; pass --image-column with one of image, y"),
        ({"image": [b""]}, {"key_column": "z"}, r"no column 'z'; pass --key-column with one of image"),
        ({"image": [b""]}, {"caption_column": "z"}, r"no column 'z'; pass --caption-column with one of image"),
        ({"image": [b""]}, {"columns": {"z": ""}}, r"no column 'z'; pass --columns with one of image"),
        ({"image": [1]}, {}, r"column 'image' is int64, expected bytes, a struct of bytes and path, or text"),
        ({"image": [{"data": b""}]}, {}, r"column 'image' is struct<data: binary>, expected bytes"),
        ({"image": [[b""]]}, {}, r"column 'image' is list<.*>, expected bytes"),
        ({"image": [{"bytes": 1}]}, {}, r"column 'image' is struct<bytes: int64>, expected bytes"),
    ],
)
def test_columns_that_are_missing_or_unusable(write, columns, spec, message):
    path = write(columns)
    with pytest.raises(InputError, match=message) as caught:
        listed(path, **spec)
    assert path.as_uri() in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_disagree(write, tmp_path):
    write({"image": [b"a"], "size": [1]}, "d/0.parquet")
    write({"image": [b"a"], "size": [1.5]}, "d/1.parquet")
    assert listed(tmp_path / "d", "parquet").num_images == 2  # an error only if the column is requested
    with pytest.raises(InputError, match=r"1.parquet: column 'size' is double, but int64 in other files"):
        listed(tmp_path / "d", "parquet", columns={"size": ""})
    write({"image": [b"a"], "caption": ["x"]}, "e/0.parquet")
    write({"image": [b"a"]}, "e/1.parquet")
    with pytest.raises(InputError, match=r"e/1.parquet has no column 'caption'"):
        listed(tmp_path / "e/*.parquet")


def test_files_of_bytes_and_of_paths_in_one_source(write, tmp_path):
    write({"image": [b"a"]}, "d/0.parquet")
    write({"image": ["x.jpg"]}, "d/1.parquet")
    assert [entry.data for entry in read_all(tmp_path / "d/*.parquet")] == [b"a", None]


# --- rows


@pytest.mark.parametrize("capacity", [1, 3, 64, 65, 100, 1000])
@pytest.mark.parametrize("row_group_size", [1, 7, 64, 150, 1000])
def test_every_row_is_read_once_wherever_shards_and_row_groups_end(write, row_group_size, capacity):
    num_rows = 300 if capacity >= 64 else 20
    path = write({"image": [b"%d" % n for n in range(num_rows)], "n": range(num_rows)}, row_group_size=row_group_size)
    found = read_all(path, capacity, columns={"n": ""})
    assert [entry.data for entry in found] == [b"%d" % n for n in range(num_rows)]
    assert [entry.extra["n"] for entry in found] == list(range(num_rows))
    assert [entry.key for entry in found] == [f"data.parquet/{n}" for n in range(num_rows)]


def test_any_range_of_rows(write):
    path = write({"image": [b"%d" % n for n in range(500)]}, row_group_size=90)
    listing = listed(path)
    choose = random.Random(5)
    for _ in range(60):
        start, stop = sorted(choose.choices(range(501), k=2))
        found = list(read_file(listing.files[0], listing.source, start, stop))
        assert [entry.data for entry in found] == [b"%d" % n for n in range(start, stop)]
        assert all(read_image(entry.uri) == entry.data for entry in found[:2])


def test_missing_rows(write):
    path = write({"image": [b"a"]})
    for uri in (f"{path.as_uri()}#column=image&row=1", f"{path.as_uri()}#column=none&row=0"):
        with pytest.raises(OSError, match=r"cannot read row \d"):
            read_image(uri)


def test_a_cell_beyond_the_limit_is_refused(write, monkeypatch):
    path = write({"image": [b"a" * 101, b"b" * 100]})
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 100)
    assert len(read_image(f"{path.as_uri()}#column=image&row=1")) == 100
    with pytest.raises(OSError, match=r"101 bytes, the limit is 100"):
        read_image(f"{path.as_uri()}#column=image&row=0")


def test_several_files_are_ordered_by_name(write, tmp_path):
    for name, size in (("b.parquet", 3), ("a/z.parquet", 2), (".hidden.parquet", 9), ("empty.parquet", 0)):
        write({"image": pa.array([b"x"] * size, pa.binary())}, f"d/{name}")
    listing = listed(tmp_path / "d", "parquet")
    assert [(file.key, file.num_rows) for file in listing.files] == [
        ("a/z.parquet", 2), ("b.parquet", 3), ("empty.parquet", 0),
    ]  # fmt: skip
    assert listing.num_images == 5
    shards = list(cut_files(listing.files, listing.source, 2, 0, 0))
    assert [(shard.file.key, shard.first_id, shard.start, shard.num_images) for shard in shards] == [
        ("a/z.parquet", 0, 0, 2), ("b.parquet", 2, 0, 2), ("b.parquet", 4, 2, 1),
    ]  # fmt: skip


# --- keys


def test_a_column_of_keys(write):
    path = write({"image": [b"a"] * 4, "id": pa.array([7, 8, None, 9])})
    assert [entry.key for entry in read_all(path, key_column="id")] == ["7", "8", "data.parquet/2", "9"]
    assert [entry.key for entry in read_all(path, key_column="id", key_prefix="set/")][:3] == [
        "set/7", "set/8", "set/data.parquet/2",
    ]  # fmt: skip


def test_repeated_keys_are_found_when_a_shard_is_read(write):
    path = write({"image": [b"a"] * 3, "id": ["x", "y", "x"]})
    listing = listed(path, key_column="id")
    [shard] = cut_files(listing.files, listing.source, 10, 0, 0)
    with pytest.raises(InputError, match=rf"{path.as_uri()} contains the key 'x' twice; .*--key-column"):
        _check(shard, read_all(path, key_column="id"))


# --- damage


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"no Parquet at all, but a text", None], ids=["empty", "4", "text", "cut"]
)
def test_files_that_are_not_parquet(write, data):
    path = write({"image": [os.urandom(100) for _ in range(50)]})
    path.write_bytes(path.read_bytes()[:-100] if data is None else data)
    with pytest.raises(InputError, match=r"cannot read .*data.parquet as Parquet: .*; download it again") as caught:
        listed(path)
    assert "\n" not in str(caught.value)


def test_files_without_rows(write, tmp_path):
    write({"image": pa.array([], pa.binary())}, "d/0.parquet")
    for location in (tmp_path / "d", tmp_path / "d/0.parquet"):
        with pytest.raises(InputError, match=r"has no rows; pass Parquet files"):
            listed(location, "parquet")


def test_a_damaged_page_is_reported_when_its_rows_are_read(write):
    path = write({"image": [bytes([n]) * 4000 for n in range(50)]}, compression="snappy", use_dictionary=False)
    found = path.stat()
    listing = listed(path)
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(InputError, match=r"data.parquet.* intact copy.*--on-change embed") as caught:
        list(read_file(listing.files[0], listing.source, 0, 50))
    assert "\n" not in str(caught.value)


def test_a_file_replaced_after_planning_is_refused(write):
    path = write({"image": [b"a"] * 3})
    listing = listed(path)
    write({"image": [b"b"] * 4})
    with pytest.raises(InputError, match=r"data.parquet changed since the run was planned"):
        list(read_file(listing.files[0], listing.source, 0, 3))


def test_text_that_is_not_utf8_fails_no_image(write):
    texts = pa.array([b"caf\xe9", b"good", None]).view(pa.string())
    path = write({"image": [b"a", b"b", b"c"], "caption": texts, "word": texts.dictionary_encode()})
    found = read_all(path, columns={"word": ""})
    assert [entry.caption for entry in found] == ["caf\ufffd", "good", None]
    assert [entry.extra["word"] for entry in found] == ["caf\ufffd", "good", None]


def test_two_columns_with_the_same_name_are_refused(write):
    column = pa.array([b"a"])
    path = write(pa.Table.from_arrays([column, column, pa.array([1]), pa.array([2])], ["image", "image", "n", "n"]))
    with pytest.raises(InputError, match=r"data.parquet has 2 columns named 'image'; rename"):
        listed(path)
    with pytest.raises(InputError, match=r"data.parquet has 2 columns named 'n'"):
        listed(write(pa.Table.from_arrays([column, column, column], ["image", "n", "n"])), columns={"n": ""})


@pytest.mark.parametrize("kind", [pa.date32(), pa.time64("us"), pa.duration("s")])
def test_times_out_of_pythons_range_fail_no_image(write, kind):
    most = 2 ** (kind.bit_width - 1) - 1
    values = pa.array([most, None], pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
    path = write({"image": [b"a", b"b"], "when": values})
    listing = listed(path, columns={"when": ""})
    found = [entry.extra["when"] for entry in read_file(listing.files[0], listing.source, 0, 2)]
    assert pa.array(found, pa.type_for_alias(listing.source.columns["when"])).equals(values)
