"""Types of Parquet columns: text stored as bytes, nested columns, images in base64, and types of no use."""

import base64
import datetime
import decimal
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.source.reading import read_file, read_image
from tests.kit.sources import listed

BYTES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())]
TEXTS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.large_string())]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))


@pytest.fixture
def write(tmp_path):
    """Writes `data.parquet` with an image per row and the given columns."""

    def write_file(**columns):
        num_rows = len(next(iter(columns.values())))
        path = tmp_path / "data.parquet"
        pq.write_table(pa.table({"image": [b"image"] * num_rows} | columns), path)
        return path

    return write_file


def read_all(location, **spec):
    """The entries, the faults and the types of the carried columns."""
    listing = listed(location, **spec)
    [file] = listing.files
    entries = list(read_file(file, listing.source, 0, file.num_rows))
    return entries, list(listing.faults.values()), listing.source.columns


def column(values, kind):
    """An array of a type, which may be a dictionary or a view."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    found = pa.array(values, plain)
    return found.dictionary_encode() if plain != kind else found


def type_of(column):
    """The type's name after a round trip: Parquet calls the items of a list elements."""
    return str(column.type).replace("list<item:", "list<element:")


# --- text


@pytest.mark.parametrize("kind", [*BYTES, *TEXTS], ids=str)
def test_text_is_text_however_it_is_stored(write, kind):
    words = ["en hund å", "犬", None, " "]
    path = write(caption=column(words, kind), id=column(words, kind))
    entries, faults, _ = read_all(path, key_column="id")
    assert faults == []
    assert [entry.caption for entry in entries] == ["en hund å", "犬", None, None]
    assert [entry.key for entry in entries] == ["en hund å", "犬", "data.parquet/2", " "]


def test_bytes_that_are_not_utf8(write):
    raw = pa.array([b"caf\xe9", "två".encode("utf-16"), b"\xef\xbb\xbfa dog"])
    entries, faults, _ = read_all(write(caption=raw, id=raw), key_column="id")
    assert [entry.caption for entry in entries] == [entry.key for entry in entries] == ["caf\ufffd", "två", "a dog"]
    assert faults == []


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.int32(), pa.dictionary(pa.int8(), pa.int64())], ids=str)
def test_integers_are_keys(write, kind):
    entries, faults, _ = read_all(write(id=column([7, 8, None], kind)), key_column="id")
    assert [entry.key for entry in entries] == ["7", "8", "data.parquet/2"]
    assert faults == []


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0]),
        pa.array([True]),
        pa.array([datetime.date(2024, 5, 6)]),
        pa.array([["a"]]),
        pa.array([{"a": 1}]),
        pa.array([decimal.Decimal("1.5")]),
    ],
    ids=lambda column: str(column.type),
)
def test_types_that_are_no_keys(write, column):
    _, [fault], _ = read_all(write(id=column), key_column="id")
    assert f"data.parquet: column 'id' is {type_of(column)}, but keys must be text or integers; pass another" in fault


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["", None, "a dog"]]),
        pa.array([[b"", b"a dog"]]),
        pa.array([[b"a dog"]], pa.large_list(pa.binary_view())),
        pa.array([["a dog", "b"]], pa.list_(pa.string(), 2)),
        pa.array([["a dog"]], pa.list_view(pa.string())),
        pa.array([["a dog"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    ],
    ids=lambda column: str(column.type),
)
def test_a_caption_is_the_first_text_of_a_list(write, column):
    [entry], faults, _ = read_all(write(caption=column))
    assert (entry.caption, faults) == ("a dog", [])


@pytest.mark.parametrize("column", [pa.nulls(1), pa.array([[]])], ids=["null", "list of null"])
def test_a_column_without_any_caption(write, column):
    [entry], faults, _ = read_all(write(caption=column))
    assert (entry.caption, faults) == (None, [])


@pytest.mark.parametrize(
    "column",
    [pa.array([7]), pa.array([1.5]), pa.array([[1, 2]]), pa.array([{"raw": "a dog"}]), pa.array([[{"raw": "a dog"}]])],
    ids=lambda column: str(column.type),
)
def test_types_that_are_no_captions(write, column):
    _, [fault], _ = read_all(write(caption=column))
    assert f"column 'caption' is {type_of(column)}, but captions must be text or lists of text; pass another" in fault


# --- carried columns


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([["x", None], None, []]), ['["x", null]', None, "[]"]),
        (
            pa.array([{"b": 1, "a": [1.5, float("nan")]}, None, {"b": 2, "a": None}]),
            ['{"a": [1.5, null], "b": 1}', None, '{"a": null, "b": 2}'],
        ),
        (pa.array([[b"\xff"], [b"a"], None]), ['["\ufffd"]', '["a"]', None]),
        (pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())), ['[["k", 1]]', "[]", None]),
        (pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("2")]), ["1.50", None, "2.00"]),
        # not UTF-8, a year that Python does not know, and a time zone that does not exist
        (pa.array([[b"caf\xe9"], None, []]).view(pa.list_(pa.string())), ['["caf\ufffd"]', None, "[]"]),
        (pa.array([[2**60], None, []]).cast(pa.list_(pa.timestamp("us"))), [f"[{2**60}]", None, "[]"]),
        (pa.array([[5], None, []]).cast(pa.list_(pa.timestamp("us", "No/Where"))), ["[5]", None, "[]"]),
    ],
)  # fmt: skip
def test_what_is_nested_is_carried_as_json(write, column, texts):
    entries, _, kinds = read_all(write(more=column), columns={"more": ""})
    assert kinds == {"more": "string"}
    assert [entry.extra["more"] for entry in entries] == texts


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([b"\xff", None]), "binary"),
        (pa.array([b"\xff", None], pa.large_binary()), "large_binary"),
        (pa.array([b"\xff", None], pa.binary(1)), "binary"),
        (pa.array([b"\xff", None]).dictionary_encode(), "binary"),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_carried_bytes_stay_bytes(write, column, kind):
    entries, _, kinds = read_all(write(raw=column), columns={"raw": ""})
    assert kinds == {"raw": kind}
    assert [entry.extra["raw"] for entry in entries] == [b"\xff", None]
    assert pa.array([entry.extra["raw"] for entry in entries], pa.type_for_alias(kind)).null_count == 1


def test_extension_types_are_what_they_are_stored_as(write):
    number = uuid.UUID(int=7)
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([number.bytes], pa.binary(16)))
    [entry], _, kinds = read_all(write(number=column), columns={"number": ""})
    assert (entry.extra, kinds) == ({"number": number.bytes}, {"number": "binary"})


# --- images


@pytest.mark.parametrize("start", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_images_in_base64(tmp_path, start, kind):
    text = start + base64.b64encode(PNG).decode()
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"image": column([text, text[:-3], "photos/a.png"], kind)}), path)
    entries, _, _ = read_all(path)
    assert entries[0].data == read_image(entries[0].uri) == PNG
    assert entries[0].uri == f"{path.as_uri()}#column=image&row=0"
    assert PNG.startswith(entries[1].data)  # cut off, so its row says why it has no pixels
    assert read_image(entries[1].uri) == entries[1].data
    assert (entries[2].data, entries[2].uri) == (None, (tmp_path / "photos/a.png").as_uri())


def test_base64_in_a_struct(tmp_path):
    text = base64.b64encode(PNG).decode()
    cells = [{"bytes": text, "path": None}, {"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"image": cells}), tmp_path / "data.parquet")
    entries, _, _ = read_all(tmp_path / "data.parquet")
    assert [entry.data for entry in entries] == [PNG, None, b""]
    assert [read_image(entry.uri) for entry in entries[::2]] == [PNG, b""]


def test_paths_stored_as_bytes(tmp_path):
    paths = ["photos/å b.JPG", "https://host/a?id=7", "s3://bucket/key"]
    cells = [*(path.encode() for path in paths), b"P3 1 1 255 0 0 0", b"\xff\xd8 a.jpg", b""]
    pq.write_table(pa.table({"url": cells}), tmp_path / "data.parquet")
    entries, _, _ = read_all(tmp_path / "data.parquet")
    assert [entry.uri for entry in entries[:3]] == [(tmp_path / paths[0]).as_uri(), *paths[1:]]
    assert [entry.data for entry in entries] == [None, None, None, *cells[3:]]
    cells = [{"bytes": None, "path": path.encode()} for path in paths]
    pq.write_table(pa.table({"image": cells}), tmp_path / "data.parquet")
    entries, _, _ = read_all(tmp_path / "data.parquet")
    assert [entry.uri for entry in entries] == [(tmp_path / paths[0]).as_uri(), *paths[1:]]
