"""What a filter finds in columns of every type."""

import datetime
import inspect
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import StoreError
from query.filters.where import parse_where
from tests.kit.mapped_rows import mapped_rows

LATE = datetime.datetime(2024, 5, 1, 12)
EARLY = datetime.datetime(2023, 1, 1)
IDS = [0, 5, 2**53, 2**53 + 1]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    letters = pa.array(["a", "b", None, "a"])
    table = pa.table(
        {
            "width": pa.array([1, 2, None, 4], pa.int32()),
            "Taken": pa.array([LATE, LATE.replace(hour=0), None, EARLY], pa.timestamp("ns", "Europe/Berlin")),
            "plain_time": pa.array([LATE, LATE.replace(hour=0), None, EARLY], pa.timestamp("s")),
            "day": pa.array([LATE.date(), datetime.date(2024, 5, 2), None, EARLY.date()]),
            "day64": pa.array([LATE.date(), datetime.date(2024, 5, 2), None, EARLY.date()], pa.date64()),
            "clock": pa.array([datetime.time(1), datetime.time(13, 45), None, datetime.time(23)], pa.time64("us")),
            "clock_s": pa.array([datetime.time(2), datetime.time(13, 45), None, datetime.time(1)], pa.time32("s")),
            "is_public": [True, False, None, True],
            "price": pa.array([Decimal("1.25"), Decimal("2.5"), None, Decimal(-3)], pa.decimal128(10, 2)),
            "short_price": pa.array([Decimal("1.25"), Decimal("2.5"), None, Decimal(-3)], pa.decimal32(6, 3)),
            "single": pa.array([0.1, float("nan"), None, 2.5], pa.float32()),
            "half": pa.array([0.1, float("nan"), None, 2.5], pa.float16()),
            "score": ["5.5", " +7", "abc", "-.5e1"],
            "view": letters.cast(pa.string_view()),
            "large": letters.cast(pa.large_string()),
            "unsigned": pa.array([2**64 - 1, 1, None, 2**63], pa.uint64()),
            "nothing": pa.nulls(4),
            "tags": [["a"], None, [], ["b"]],
            "raw": [b"a", None, b"", b"b"],
            "and": [1, 2, 3, 4],
            'odd "name"': [1, 2, 3, 4],
        }
    )
    return mapped_rows(tmp_path_factory.mktemp("rows"), table, IDS, per_batch=3)


def found(rows, text):
    return parse_where(text, rows.schema).mask(rows).nonzero()[0].tolist()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # whole numbers are compared exactly, whatever they are compared with
        ("width > 1.5", [1, 3]),
        ("width >= 1e30", []),
        ("width < 1e30", [0, 1, 3]),
        ("width > -1e30 and width != 1.5", [0, 1, 3]),
        ("not width != 1.5", []),
        ("width in (1, 2.0, 2.5, 1e40)", [0, 1]),
        ("width not in (1, null)", []),
        ("width not in (1)", [1, 3]),
        ("width in (2.5)", []),
        ("width not in (2.5)", [0, 1, 3]),
        ("width = - 1 or width = + 1", [0]),
        ("5 > width", [0, 1, 3]),
        ("2 between width and unsigned", [0]),
        ("id = 9007199254740993", [3]),
        ("id > 9007199254740992", [3]),
        ("id > 9007199254740992.5", [3]),
        ("id in (9007199254740993, 5)", [1, 3]),
        ("unsigned = 18446744073709551615", [0]),
        ("unsigned > 9223372036854775807", [0, 3]),
        ("unsigned > -1", [0, 1, 3]),
        ("unsigned < id", [1]),
        ("unsigned > width", [0, 3]),
        # decimals and floats
        ("price = 1.25", [0]),
        ("price > 1.249", [0, 1]),
        ("price in (2.5, -3, 7.001)", [1, 3]),
        ("price < width", [3]),
        ("price = short_price and short_price > 1.2499999", [0, 1]),
        ("single = 0.1 and half = 0.1", [0]),
        ("single in (0.1, 2.5)", [0, 3]),
        ("single > 1", [3]),
        ("single != single", [1]),
        ("not single > 1", [0, 1]),
        ("half < single", [0]),
        ("single < 1e100", [0, 3]),
        # dates and times, in UTC unless they say otherwise
        ("Taken > '2024-05-01'", [0]),
        ("taken = '2024-05-01 14:00+02:00'", [0]),
        ("taken >= '2024-05-01T12:00:00.000000001'", []),
        ("taken > '9999-12-31' or '0001-01-01' > taken", []),
        ("plain_time = '2024-05-01T12:00Z'", [0]),
        ("plain_time > '2024-05-01 11:59:59.5'", [0]),
        ("taken between '2024-01-01' and '2024-12-31'", [0, 1]),
        ("taken = plain_time", [0, 1, 3]),
        ("day > '2024-05-01'", [1]),
        ("day > '2024-05-01 12:00'", [1]),
        ("day64 = '2024-05-02'", [1]),
        ("day in ('2024-05-01', '2024-05-02 12:00')", [0]),
        ("day < taken", [0]),
        ("day = day64", [0, 1, 3]),
        ("clock > '13:00'", [1, 3]),
        ("clock in ('13:45:00.000')", [1]),
        ("clock < clock_s", [0]),
        # truth values
        ("is_public", [0, 3]),
        ("not is_public and width > 1", [1]),
        ("is_public = true and is_public in (true)", [0, 3]),
        ("is_public is not null", [0, 1, 3]),
        ("true", [0, 1, 2, 3]),
        ("false or width = 1", [0]),
        # text, and text that is read as numbers
        ("score > 5", [0, 1]),
        ("score > '5'", [0, 2]),
        ("score in (7, 'abc')", [1, 2]),
        ("score > width", [0, 1]),
        ("score not between 0 and 6", [1, 3]),
        ("view = 'a' and large = 'a'", [0, 3]),
        ("view = large and view in ('b')", [1]),
        ("view like 'A'", []),
        ("view ilike 'A'", [0, 3]),
        # names
        ('WIDTH = 4 or "Width" is null', [2, 3]),
        ('"and" > 3', [3]),
        ('"odd ""name""" = 2', [1]),
        # columns of which nothing but null can be asked
        ("nothing = 3 or nothing = 'a' or nothing in (1) or nothing like 'a' or nothing", []),
        ("nothing is null", [0, 1, 2, 3]),
        ("tags is null and raw is null", [1]),
    ],
)
def test_what_is_found(rows, text, wanted):
    assert found(rows, text) == wanted


def test_only_the_columns_of_the_filter_are_read(rows, monkeypatch):
    asked = []
    batches = type(rows).batches
    monkeypatch.setattr(type(rows), "batches", lambda self, columns: asked.append(columns) or batches(self, columns))
    where = parse_where("WIDTH > 1 or day is null or width = 7", rows.schema)
    assert where.mask(rows).tolist() == [False, True, True, True]
    assert asked == [("width", "day")]


def test_a_damaged_index_is_reported_as_such(tmp_path):
    rows = mapped_rows(tmp_path, pa.table({"width": pa.array(range(100), pa.int32())}))
    path = tmp_path / rows.files.names[2]
    path.write_bytes(path.read_bytes()[: rows.files.offsets[1]] + bytes(rows.files.arrow_bytes))
    rows = type(rows)(tmp_path, rows.files)
    with pytest.raises(StoreError, match="is damaged; run `clipsieve index --check`"):
        parse_where("width > 1", rows.schema).mask(rows)


def test_dictionaries_are_compared_as_their_values():
    column = pa.array(["a", "b", None, "a"]).dictionary_encode()
    where = parse_where("letter = 'a' or letter like 'b%'", pa.schema([pa.field("letter", column.type)]))

    class Rows:
        num_rows = 4

        def batches(self, columns):
            return [pa.record_batch({"letter": column})]

    assert where.mask(Rows()).tolist() == [True, True, False, True]


def test_an_index_without_rows(tmp_path):
    rows = mapped_rows(tmp_path, pa.table({"width": pa.array([], pa.int32())}))
    mask = parse_where("width > 1 or id = 3", rows.schema).mask(rows)
    assert mask.dtype == bool
    assert mask.shape == (0,)


def test_long_filters_side_by_side_are_fine(rows):
    assert found(rows, " or ".join(["width = 4"] * 700)) == [3]
    assert found(rows, "(" * 4_000 + "width = 4" + ")" * 4_000) == [3]


def test_a_filter_of_the_greatest_depth_needs_little_of_the_stack(rows):
    found(rows, "width = 4")  # imports the parser
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 250)
    try:
        assert found(rows, "not " * 99 + "width = 4") == [0, 1]
    finally:
        sys.setrecursionlimit(limit)


def test_the_mask_of_a_thread_is_its_own(rows):
    texts = [f"width = {number}" for number in (1, 2, 4)] * 30
    with ThreadPoolExecutor(8) as pool:
        masks = list(pool.map(lambda text: parse_where(text, rows.schema).mask(rows), texts))
    assert [int(np.flatnonzero(mask)[0]) for mask in masks] == [0, 1, 3] * 30
