"""Random filters mean what they mean in SQL: SQLite, which has the same three-valued logic, finds the same rows."""

import random
import sqlite3

import pyarrow as pa
import pytest

from query.filters.where import parse_where
from tests.kit.mapped_rows import mapped_rows

FILTERS_PER_SEED = 40
COLUMNS = {
    "small": (pa.int16(), [None, -3, 0, 1, 2, 7]),
    "big": (pa.int64(), [None, 2**53, 2**53 + 1, -(2**60), 5, 2**63 - 1]),
    "real": (pa.float64(), [None, -0.5, 0.0, 1.5, 2.0, 1e300]),
    "name": (pa.string(), [None, "", "a", "A_b", "100%", "it's", "dög\nx", "a\\b", "zebra"]),
    "other": (pa.large_string(), [None, "a", "zebra", "B"]),
    "flag": (pa.bool_(), [None, True, False]),
}
NUMBERS = ["-3", "0", "1", "1.5", "2.0", "-0.5", "+7", "9007199254740993", "9223372036854775807", "1e300", "2.5", ".5"]
TEXTS = ["''", "'a'", "'A_b'", "'it''s'", "'zebra'", "'b'"]
PATTERNS = ["'%'", "'a%'", "'%b'", "'_'", "'%\n%'", "'A!_%'", "'%!%'", "'a\\b'", "'%z_b%'", "''", "'d_g%'"]


@pytest.fixture(scope="module")
def table():
    chance = random.Random(3)
    return pa.table(
        {name: pa.array([chance.choice(values) for _ in range(60)], kind) for name, (kind, values) in COLUMNS.items()}
    )


@pytest.fixture(scope="module")
def rows(table, tmp_path_factory):
    return mapped_rows(tmp_path_factory.mktemp("rows"), table)


@pytest.fixture(scope="module")
def sqlite(table):
    database = sqlite3.connect(":memory:")
    database.execute("pragma case_sensitive_like = on")
    kinds = {"real": "real", "name": "text", "other": "text"}
    columns = ", ".join(f"{name} {kinds.get(name, 'integer')}" for name in COLUMNS)
    database.execute(f"create table t (id integer, {columns})")
    values = [(number, *row.values()) for number, row in enumerate(table.to_pylist())]
    database.executemany(f"insert into t values ({', '.join('?' * (len(COLUMNS) + 1))})", values)
    yield database
    database.close()


def some_filter(chance, depth):
    """A random filter that both languages have."""
    if depth and chance.random() < 0.7:
        form = chance.choice(["{} and {}", "{} or {}", "({}) or {}", "({} or {}) and {}", "not {}", "not ({} and {})"])
        return form.format(*(some_filter(chance, depth - 1) for _ in range(form.count("{}"))))
    negated = chance.choice(["", "not "])
    if chance.random() < 0.4:
        column, values = chance.choice(["name", "other"]), TEXTS
        if chance.random() < 0.4:
            return f"{column} {negated}like {chance.choice(PATTERNS)} escape '!'"
    else:
        column, values = chance.choice(["small", "big", "real", "id"]), NUMBERS
    operator = chance.choice(["=", "==", "!=", "<>", "<", "<=", ">", ">="])
    return chance.choice(
        [
            f"{column} {operator} {chance.choice(values)}",
            f"{chance.choice(values)} {operator} {column}",
            f"{column} {negated}between {chance.choice(values)} and {chance.choice(values)}",
            f"{column} {negated}in ({', '.join(chance.choices([*values, 'null'], k=3))})",
            f"{column} is {negated}null",
            f"small {operator} big",
            f"name {operator} other",
            f"{negated}flag",
            f"flag {operator} true",
            chance.choice(["true", "false"]),
        ]
    )


@pytest.mark.parametrize("seed", range(10))
def test_random_filters_find_what_sqlite_finds(rows, sqlite, seed):
    chance = random.Random(seed)
    shares = []
    for _ in range(FILTERS_PER_SEED):
        text = some_filter(chance, 3)
        if "A!_" not in text and "%!%" not in text:
            text = text.replace(" escape '!'", "")
        wanted = {number for (number,) in sqlite.execute(f"select id from t where {text}")}
        found = parse_where(text, rows.schema).mask(rows)
        assert found.shape == (60,)
        assert set(found.nonzero()[0].tolist()) == wanted, text
        shares.append(len(wanted) / 60)
    assert min(shares) < 0.1
    assert max(shares) > 0.9


def test_ilike_ignores_case_as_sqlites_own_like_does(rows, sqlite):
    sqlite.execute("pragma case_sensitive_like = off")
    for pattern in ["a%", "%B", "ZEBRA", "a_B"]:
        wanted = [number for (number,) in sqlite.execute(f"select id from t where name like '{pattern}'")]
        assert parse_where(f"name ilike '{pattern}'", rows.schema).mask(rows).nonzero()[0].tolist() == wanted
        assert wanted
    sqlite.execute("pragma case_sensitive_like = on")
