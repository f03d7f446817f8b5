"""Two answers side by side: who moved, who is new, and whom the other store does not have at all."""

import json

import numpy as np
import pyarrow.csv
import pytest

from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.store.tombstones import DELETED, add_tombstones
from query import Searcher, compare
from query.cli.comparison import movement, print_comparison
from query.hits.compare import SCHEMA, rank_biased_overlap
from query.hits.hit import Hit
from query.hits.writers import write_hits
from query.opened import Opened
from tests.kit.hits import Store, hits_of
from tests.kit.vector_store import unit_vectors, vector_store

DIM = 16


def hits(names, offset=0, stored=""):
    made = [Hit(rank=n, id=n + offset, key=name, uri="file:///x", score=2.0**-n) for n, name in enumerate(names, 1)]
    return hits_of(made, store=Store(*stored))


def test_who_moved_who_is_new_and_who_is_not_there_at_all():
    comparison = compare(hits("abcd", stored="abcde"), hits("acbxe", offset=50, stored="abcdex"))
    moves = {pair.key: movement(pair) for pair in comparison.pairs}
    assert moves == {"a": "=", "b": "-1", "c": "+1", "d": "gone", "x": "new, not in 1", "e": "new"}
    assert [pair.key for pair in comparison.pairs] == ["a", "b", "c", "d", "x", "e"]
    assert comparison.overlap == pytest.approx(3 / 5)
    gone = compare(hits("ab", stored="ab"), hits("a", stored="a")).pairs[1]
    assert (movement(gone), gone.in_second, gone.second) == ("gone, not in 2", False, None)


def test_the_table_has_both_ranks():
    table = compare(hits("ab"), hits("bc", offset=50)).to_arrow()
    assert table.schema == SCHEMA
    rows = {row["key"]: row for row in table.to_pylist()}
    assert {key: (row["rank"], row["rank2"], row["moved"], row["id"], row["id2"]) for key, row in rows.items()} == {
        "a": (1, None, None, 1, None), "b": (2, 1, 1, 2, 51), "c": (None, 2, None, None, 52),
    }  # fmt: skip
    assert rows["c"]["uri"] == "file:///x"
    assert rows["c"]["in_store"] is False


def test_answers_without_hits():
    nothing = compare(hits(""), hits(""))
    assert (nothing.pairs, nothing.overlap, nothing.rank_biased_overlap) == ((), None, None)
    assert nothing.to_arrow().num_rows == 0
    one_sided = compare(hits("ab"), hits(""))
    assert (one_sided.overlap, one_sided.rank_biased_overlap) == (0.0, 0.0)
    json.dumps(one_sided.to_dict(), allow_nan=False)


def test_a_key_that_is_twice_counts_once():
    comparison = compare(hits("aba"), hits("ba"))
    assert {pair.key: pair.moved for pair in comparison.pairs} == {"a": -1, "b": 1}
    assert comparison.overlap == 1.0


def brute_force_rbo(first, second, p):
    """Equation 32 of the paper, term by term."""
    short, long = sorted((first, second), key=len)
    s, l = len(short), len(long)  # noqa: E741
    x = [len(set(short[:d]) & set(long[:d])) for d in range(l + 1)]
    total = sum(x[d] / d * p**d for d in range(1, l + 1))
    total += sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    return (1 - p) / p * total + ((x[l] - x[s]) / l + x[s] / s) * p**l


def test_rank_biased_overlap():
    assert rank_biased_overlap("abcdef", "abcdef") == pytest.approx(1)
    assert rank_biased_overlap("abc", "xyz") == 0
    assert rank_biased_overlap("abc", "abcdefgh") == pytest.approx(1)  # what is known agrees
    assert rank_biased_overlap("ab", "ba", 0.5) == pytest.approx(0.5)  # 0 at depth 1, all from depth 2 on
    rng = np.random.default_rng(0)
    for _ in range(50):
        first, second = (list(rng.permutation(12)[: rng.integers(1, 12)]) for _ in range(2))
        expected = brute_force_rbo(first, second, 0.9)
        assert rank_biased_overlap(first, second) == pytest.approx(expected)
        assert rank_biased_overlap(second, first) == pytest.approx(expected)
    # the top counts most
    assert rank_biased_overlap("abcdef", "bacdef") < rank_biased_overlap("abcdef", "abcdfe")


def test_the_printed_table(capsys):
    print_comparison(compare(hits(["a", "b", "\x1b[1m"]), hits("ba")), ("one", "two"))
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if "+1 │" in line and "│ b " in line]
    assert "1: one, 3.8 ms (embed 2.0, filter 0.5, index 1.0, hits 0.2)" in shown
    assert "2: two, 3.8 ms" in shown
    assert "rank-biased overlap" in shown
    assert "\x1b[1m" not in shown


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store, and another with noise in its vectors, without its last shard, and with one image deleted."""
    folder, vectors = tmp_path_factory.mktemp("stores"), unit_vectors(300, DIM)
    noisy = vectors + 0.15 * np.random.default_rng(3).normal(size=vectors.shape)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    first = vector_store(folder / "first", vectors, 100)
    second = vector_store(folder / "second", noisy[:200].astype(np.float32), 100)
    build_index(IndexSettings(store=first.root))
    build_index(IndexSettings(store=second.root))
    add_tombstones(second, [5], DELETED, {5: "0/5.jpg"})
    return first.root, second.root, vectors


def test_two_stores(stores):
    with Searcher.open(stores[0]) as one, Searcher.open(stores[1]) as two:
        query = stores[2][5]
        comparison = compare(one.search(vector=query, k=20), two.search(vector=query, k=20))
        pairs = {pair.key: pair for pair in comparison.pairs}
        assert movement(pairs["0/5.jpg"]) == "gone, not in 2"
        for key, pair in pairs.items():
            assert (pair.in_first, pair.in_second) == (True, not key.startswith("2/") and key != "0/5.jpg")
        back = compare(comparison.second, comparison.first)
        moves = {pair.key: movement(pair) for pair in back.pairs}
        assert "gone" in moves.values()  # pushed out by images that only the first store has
        assert {move for key, move in moves.items() if key.startswith("2/")} == {"new, not in 1"}
        ranks = {hit.key: hit.rank for hit in two.search(vector=query, k=20)}
        assert {key: pair.second.rank for key, pair in pairs.items() if pair.second} == ranks
        assert 0 < comparison.rank_biased_overlap < 1


def test_which_keys_a_store_has(stores):
    with Searcher.open(stores[1]) as searcher:
        assert searcher.has_keys(["0/5.jpg", "1/99.jpg", "2/0.jpg", "it's"]) == [False, True, False, False]
        assert searcher.has_keys([]) == []
    assert Opened(None, None, ()).has_keys(["a"]) == [None]
    unknown = compare(hits("a"), hits("b"))
    assert unknown.pairs[0].in_second is False


def test_a_table_with_unknown_presence():
    store = Store()
    store.has_keys = lambda keys: [None] * len(keys)
    made = hits_of([Hit(rank=1, id=1, key="a", uri="file:///a", score=0.5)])
    [pair] = compare(made, hits_of([], store=store)).pairs
    assert (pair.in_second, movement(pair)) == (None, "gone")


def test_csv_of_a_comparison(tmp_path):
    write_hits(
        tmp_path / "c.csv", [compare(hits("ab"), hits("bc")).to_arrow(), compare(hits("a"), hits("")).to_arrow()]
    )
    rows = pyarrow.csv.read_csv(tmp_path / "c.csv").to_pylist()
    assert [(row["query"], row["key"], row["rank"], row["rank2"]) for row in rows] == [
        (0, "a", 1, None), (0, "b", 2, 1), (0, "c", None, 2), (1, "a", 1, None),
    ]  # fmt: skip
