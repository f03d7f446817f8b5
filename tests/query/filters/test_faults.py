"""What is wrong with a filter, and where, in one line."""

import random

import pyarrow as pa
import pytest

from pipeline.errors import ConfigError
from query.filters.where import MAX_LISTED, parse_where

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "caption": pa.string(),
        "width": pa.int32(),
        "taken": pa.timestamp("us"),
        "clock": pa.time32("s"),
        "is_public": pa.bool_(),
        "tags": pa.list_(pa.string()),
        "raw": pa.binary(),
        "size": pa.struct({"a": pa.int8()}),
        "Ab": pa.int8(),
        "aB": pa.int8(),
    }
)


@pytest.mark.parametrize(
    ("text", "position", "parts"),
    [
        # what is not in the language
        ("width >", 8, ["the filter ends", "a column, a number, a text in single quotation marks or true"]),
        ("width > > 5", 9, ["found `>`"]),
        ("width 5", 7, ["found `5`", "a comparison such as =", "AND, OR or the end"]),
        ("width > 1)", 10, ["closes nothing"]),
        ("(width > 1", 11, ["the filter ends", 'expected ")"']),
        ("caption = 'dog", 11, ["never closed"]),
        ('caption = "dog', 11, ["never closed"]),
        ("lower(caption) = 'a'", 6, ["found `(`"]),
        ("width + 1 > 2", 7, ["found `+ 1`"]),
        ("width * 2 > 2", 7, ["`*` has no meaning"]),
        ("width > 1; drop table x", 10, ["`;` has no meaning"]),
        ("width > 1 -- and so on", 11, ["`-` has no meaning"]),
        ("width::text = 'a'", 6, ["`:` has no meaning"]),
        ("cast(width as text) = 'a'", 5, ["found `(`"]),
        ("width in (select 1)", 11, ["found `select`"]),
        ("width in ()", 11, ["found `)`"]),
        ("width = (1)", 9, ["found `(`"]),
        ("(width > 1) = true", 13, ["found `=`"]),
        ("width is 3", 10, ["found `3`", "NULL"]),
        ("width < 3 < 4", 11, ["found `<`"]),
        ("width > 1\nor\x1b[31m", 13, ["\\x1b", "width > 1\\nor"]),
        ("width = 1 \udcff", 11, ["UTF-8"]),
        ("1 = 1", 1, ["needs a column"]),
        ("5", 1, ["a number is no condition"]),
        ("null", 1, ["null is no condition"]),
        ("'a' is null", 1, ["expected a column"]),
        # columns
        (
            "widht > 3",
            1,
            ["no column 'widht'", "did you mean width?", "the columns are id, key, caption, width"],
        ),
        ('caption = "dog"', 11, ["no column 'dog'", "single quotation marks", "the columns are id, key"]),
        ("caption = dog", 11, ["no column 'dog'", "single quotation marks"]),
        ("ab = 1", 1, ["'ab' could be Ab or aB"]),
        ("width", 1, ["'width' holds numbers (int32)"]),
        # literals of another type
        ("width > '512'", 9, ["numbers (int32)", "'512' is a text", "without quotation marks"]),
        ("width in (1, 'a')", 14, ["'a' is a text"]),
        ("width between 1 and 'a'", 21, ["'a' is a text"]),
        ("width = true", 9, ["true or false"]),
        ("is_public = 1", 13, ["write true or false"]),
        ("caption = true", 11, ["true is true or false", "single quotation marks"]),
        ("taken > 2024", 9, ["timestamp[us]", "2024 is a number", "'2024-05-31'"]),
        ("taken > '2024-13-01'", 9, ["'2024-13-01' is no", "2024-05-31"]),
        ("taken > '2024-05'", 9, ["'2024-05' is no"]),
        ("taken > '2024-05-01 12:00 CEST'", 9, ["is no"]),
        ("clock > '25:00'", 9, ["'25:00' is no", "13:45:00"]),
        ("taken = caption", 9, ["dates or times", "text", "columns of the same kind"]),
        ("width = is_public", 9, ["columns of the same kind"]),
        ("width = null", 9, ["is null"]),
        ("width = 1e999", 9, ["no column can hold"]),
        ("width = 1e9999999999999999999999", 9, ["no column can hold"]),
        (f"width = {'9' * 500}", 9, ["no column can hold"]),
        ("tags = 'a'", 8, ["list", "only `is null`"]),
        ("raw = 'a'", 7, ["binary", "only `is null`"]),
        ("raw = raw", 7, ["only `is null`"]),
        ("size in (1)", 10, ["struct", "only `is null`"]),
        ("width like '5%'", 12, ["LIKE needs text"]),
        ("caption like 'a' escape 'ab'", 25, ["one character"]),
        ("caption like 'a' escape ''", 25, ["one character"]),
        ("caption like 'a!b' escape '!'", 14, ["must stand before"]),
        ("caption like 'a!' escape '!'", 14, ["must stand before"]),
        # too much of it
        ("not " * 101 + "is_public", 401, ["more than 100 conditions inside each other"]),
        ("not " * 2_490 + "is_public", 401, ["more than 100"]),
        ("(" * 9_000, 9_001, ["the filter ends"]),
    ],
)
def test_the_fault_and_its_position(text, position, parts):
    with pytest.raises(ConfigError) as caught:
        parse_where(text, SCHEMA)
    message = str(caught.value)
    assert message.startswith(f"where, character {position} of `")
    assert message.isprintable()
    for part in parts:
        assert part in message


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_filter(text):
    with pytest.raises(ConfigError, match="the filter is empty"):
        parse_where(text, SCHEMA)


def test_a_filter_that_is_too_long():
    with pytest.raises(ConfigError, match="has 10001 characters, 10000 are allowed"):
        parse_where("width=1" + " " * 9_994, SCHEMA)


def test_a_long_filter_is_shown_around_the_fault():
    with pytest.raises(ConfigError) as caught:
        parse_where(" and ".join(["width > 1"] * 50) + " nor " + " and ".join(["width > 1"] * 50), SCHEMA)
    message = str(caught.value)
    assert "`...1 and width > 1 and width > 1 nor width > 1 and width > 1 an...`" in message


def test_many_columns_are_not_all_listed():
    schema = pa.schema({f"column_{number}": pa.int8() for number in range(100)})
    with pytest.raises(ConfigError, match=f"column_{MAX_LISTED - 2} and 61 more$"):
        parse_where("x = 1", schema)


def test_what_is_not_a_filter_is_always_one_line():
    chance = random.Random(1)
    pieces = ["caption", "width", "=", "<", "and", "or", "not", "in", "(", ")", ",", "'x'", "5", "-3", "null", "is"]
    pieces += [
        "like",
        "between",
        "true",
        '"key"',
        "escape",
        "\n",
        "\x1b[2J",
        "\u202e",
        "\ud800",
        "'",
        ";",
        "--",
        "tags",
    ]
    messages = []
    for _ in range(3_000):
        text = " ".join(chance.choices(pieces, k=chance.randint(1, 9)))
        try:
            parse_where(text, SCHEMA)
        except ConfigError as error:
            messages.append(str(error))
    assert 2_500 < len(messages) < 3_000
    assert all(message.isprintable() and len(message) < 400 for message in messages)
