"""`Hits` as a sequence and as tables: names of columns that are taken, values that JSON lacks, what is printed."""

import datetime
import json
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from query.hits.hit import Hit
from query.hits.relevance import WEAK
from query.hits.writers import write_hits
from tests.kit.hits import Store, hits_of

OWN = ["rank", "id", "key", "uri", "score", "relevance", "caption", "duplicates"]


def hit(rank, key=None, relevance=None, **fields):
    key = key or f"{rank}.jpg"
    return Hit(rank=rank, id=10 + rank, key=key, uri=f"file:///{key}", score=2.0**-rank, relevance=relevance, **fields)


def test_hits_are_a_sequence():
    made = [hit(1, caption="one", relevance=0.5), hit(2), hit(3)]
    hits = hits_of(made)
    assert (len(hits), list(hits)[1:], hits[-1], hits[:2][1]) == (3, made[1:], made[2], made[1])
    assert (hits[0].caption, hits[0].relevance, hits[1].relevance) == ("one", 0.5, None)
    assert made[1] in hits
    with pytest.raises(IndexError):
        hits[3]
    assert not hits_of([])


def test_columns_of_the_store_whose_names_are_taken():
    columns = {
        "width": pa.array([640]),
        "rank": pa.array(["a"]),
        "score": pa.array([7]),
        "query": pa.array(["b"]),
        "store_rank": pa.array(["c"]),
    }
    hits = hits_of([hit(1)], columns=columns)
    names = ["width", "store_store_rank", "store_score", "store_query", "store_rank"]
    assert hits.to_arrow().column_names == [*OWN, *names]
    assert (hits[0].rank, hits[0].score) == (1, 0.5)
    assert hits[0].columns == dict(zip(names, [640, "a", 7, "b", "c"], strict=True))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_file_of_hits_has_each_column_once(tmp_path, suffix):
    path = tmp_path / f"hits{suffix}"
    two = hits_of([hit(1), hit(2)], columns={"query": pa.array(["x", "y"])})
    one = hits_of([hit(1)], columns={"query": pa.array(["z"])})
    write_hits(path, [two.to_arrow(), one.to_arrow()])
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        rows = (pq.read_table(path) if suffix == ".parquet" else pyarrow.csv.read_csv(path)).to_pylist()
    assert [(row["query"], row["store_query"], row["rank"]) for row in rows] == [(0, "x", 1), (0, "y", 2), (1, "z", 1)]


def test_values_that_json_lacks(tmp_path):
    columns = {
        "nan": pa.array([float("nan")]),
        "day": pa.array([datetime.date(2026, 11, 26)]),
        "exact": pa.array([Decimal("1.50")]),
        "raw": pa.array([b"ab\xff"]),
        "nanoseconds": pa.array([1], pa.timestamp("ns")),
        "clock": pa.array([3_600_000_000_001], pa.time64("ns")),
        "far": pa.array([2**60], pa.timestamp("s")),
    }
    hits = hits_of([hit(1)], columns=columns)
    assert hits[0].columns["day"] == datetime.date(2026, 11, 26)
    assert hits[0].columns["nanoseconds"].year == 1970
    [found] = json.loads(json.dumps(hits.to_dict(), allow_nan=False))["hits"]
    assert {name: found[name] for name in list(columns)[:-1]} == {
        "nan": None,
        "day": "2026-11-26",
        "exact": "1.50",
        "raw": "ab\ufffd",
        "nanoseconds": "1970-01-01T00:00:00",
        "clock": "01:00:00",
    }
    assert isinstance(found["far"], str)
    write_hits(tmp_path / "hits.jsonl", [hits.to_arrow()])
    assert json.loads((tmp_path / "hits.jsonl").read_text())["day"] == "2026-11-26"


def test_hits_as_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = hits_of([hit(1, relevance=2.0), hit(2)], columns={"width": pa.array([640, 480])}).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == [*OWN, "width"]
    assert frame[frame.width < 500].key.to_list() == ["2.jpg"]
    assert frame.relevance.isna().to_list() == [False, True]


def test_hits_in_a_console_are_a_few_lines():
    hits = hits_of(
        [hit(n, relevance=WEAK + 1.5 - n, caption="x" * 300) for n in range(1, 9)], warnings=("stale\nindex",)
    )
    lines = repr(hits).splitlines()
    assert lines[0] == "8 hits of 'a query', 7 of them weak (3.8 ms)"
    assert lines[1].startswith("   1  0.5000")
    assert "1.jpg  xxx" in lines[1]
    assert lines[6:] == ["      and 3 more", r"warning: stale\nindex"]
    assert max(map(len, lines)) <= 160


def test_no_hits():
    hits = hits_of([])
    assert repr(hits).splitlines() == ["0 hits of 'a query' (3.8 ms)", "note: no hits: no image was found"]
    assert hits.to_arrow().column_names == OWN
    assert hits.to_dict()["hits"] == []


def test_hits_are_asked_again_with_what_was_asked():
    store = Store()
    asked = []
    store.ask = lambda request: asked.append(request) or replace(hits, request=request)
    hits = hits_of([hit(1), hit(2)], store=store, k=7, where=("width > 1",), unique=0.9, min_relevance=1.5)
    narrower = hits.where("height > 2").where("a = 'b'")
    assert [request.text for request in asked] == ["a query"] * 2
    assert narrower.request.options == replace(hits.request.options, where=("width > 1", "height > 2", "a = 'b'"))
    alike = narrower.like(hits[0], 5, "key.jpg").request
    assert (alike.text, alike.like, alike.options) == (None, (11, 5, "key.jpg"), narrower.request.options)
