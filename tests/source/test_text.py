"""Values of any source as captions, keys and carried columns."""

import datetime
import decimal
import math

import pytest

from pipeline.source.formats.text import caption_of, column_of, decode_text, key_of

TEXT = "två hundar, 犬 🐕"


@pytest.mark.parametrize(
    "raw",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        b"\xff\xfe" + TEXT.encode("utf-16-le"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
    ],
    ids=["UTF-8", "UTF-8 with a mark", "UTF-16 LE", "UTF-16 BE"],
)
def test_encodings(raw):
    assert decode_text(raw) == column_of(raw) == caption_of(raw) == key_of(raw) == TEXT
    assert caption_of(raw + b"\n" if b"\0" not in raw else raw) == TEXT


@pytest.mark.parametrize(
    ("raw", "text"), [(b"caf\xe9", "caf\ufffd"), (b"\xff\xfea\0b", "a\ufffd"), (b"", ""), (b"\xff\xfe", "")]
)
def test_what_is_invalid_is_replaced(raw, text):
    assert decode_text(raw) == text


@pytest.mark.parametrize("value", [None, math.nan, "", "  \n\t", "\ufeff", b" ", [], [None, " ", math.nan]])
def test_values_without_a_caption(value):
    assert caption_of(value) is None


@pytest.mark.parametrize(
    ("value", "caption"),
    [
        (" a dog\n", "a dog"),
        ("\ufeffa dog", "a dog"),
        ("null", "null"),  # a word
        ([None, "", " \n", "a dog", "a hound"], "a dog"),
        ([b"a dog"], "a dog"),
        ([math.nan, 7], "7"),
        ({"raw": "a dog"}, '{"raw": "a dog"}'),
    ],
)
def test_captions(value, caption):
    assert caption_of(value) == caption


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (None, None),
        (math.nan, None),
        ("", ""),
        (" a ", " a "),
        ("\ud800", "?"),
        (True, "true"),
        (7, "7"),
        (4.5, "4.5"),
        (decimal.Decimal("1.50"), "1.50"),
        (["x", None, math.nan], '["x", null, null]'),
        ({"b": [b"\xe5"], "a": {"when": datetime.date(2024, 5, 6)}}, '{"a": {"when": "2024-05-06"}, "b": ["\ufffd"]}'),
        ([("key", datetime.datetime(2024, 5, 6, 7, 8))], '[["key", "2024-05-06T07:08:00"]]'),
    ],
)
def test_columns(value, column):
    assert column_of(value) == column


def test_keys_stay_verbatim():
    assert [key_of(value) for value in (" a ", b" a ", 7, "", None)] == [" a ", " a ", "7", None, None]


def test_a_value_that_is_nested_too_deeply_is_null():
    value = []
    for _ in range(5000):
        value = [value]
    assert column_of(value) is caption_of(value) is None
