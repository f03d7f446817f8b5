"""Several threads on one `Searcher`: the answers of one thread, also while the store changes."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from indexer import build_index
from pipeline.store.tombstones import DELETED, add_tombstones
from query import Searcher
from tests.kit.vector_store import unit_vectors, vector_store

THREADS = 8
DIM = 16


def answer_of(hits):
    return [(hit.id, hit.key, hit.rank, hit.columns) for hit in hits], np.array([hit.score for hit in hits])


def same(one, other):
    return one[0] == other[0] and np.allclose(one[1], other[1], atol=1e-5)


def in_threads(searcher, queries):
    """The answers, asked by many threads at once."""
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(lambda query: answer_of(searcher.search(**query)), queries))


def mixed(vectors, keys):
    """Queries of all kinds in turns, each different from the others."""
    texts = ('"a cat" + {}*"a dog"', "{} cats", "a dog and {} birds")
    wheres = ("width > 50", "height <= 40 or key like '%1%'", "caption is null")
    for number in range(1000):
        yield [
            {"query": texts[number % 3].format(number), "k": 3},
            {"vector": vectors[number % len(vectors)] + number / 1000, "where": wheres[number % 3]},
            {"like": keys[number % len(keys)], "k": 4},
            {"vector": vectors[number % len(vectors)], "unique": True, "k": 5},
            {"query": texts[number % 3].format(number), "like": keys[number % len(keys)], "where": wheres[number % 2]},
        ][number % 5]


def test_many_threads_get_the_answers_of_one(photos_store):
    with Searcher.open(photos_store, device="cpu") as searcher:
        keys = [hit.key for hit in searcher.search("a cat", k=100)]
        dim = searcher.encoder.embedding_dim
        queries = list(mixed(unit_vectors(30, dim), keys))
        alone = [answer_of(searcher.search(**query)) for query in queries]
    with Searcher.open(photos_store, device="cpu") as searcher:  # which has loaded nothing yet
        together = in_threads(searcher, queries)
    assert [number for number, pair in enumerate(zip(alone, together, strict=True)) if not same(*pair)] == []
    assert len({tuple(map(str, found[0])) for found in alone}) > 50  # else mixed answers would not show


@pytest.mark.parametrize("recipe", ["Flat", "IVF8,Flat"])
def test_every_answer_is_of_one_state_while_the_store_changes(tmp_path, recipe):
    vectors = unit_vectors(600, DIM)
    store = vector_store(tmp_path / "store", vectors, 100)
    build_index(store.root, recipe=recipe, proof=False)
    asked = vectors[[0, 7, 200, 207, *range(300, 320)]]  # the first four will be deleted
    with Searcher.open(store.root, device="cpu") as searcher:
        states, done = [[answer_of(searcher.search(vector=one, k=20)) for one in asked]], Event()

        def ask(thread):
            found = []
            while not done.is_set() or not found:
                number = (thread + len(found)) % len(asked)
                found.append((number, answer_of(searcher.search(vector=asked[number], k=20))))
                searcher.refresh()
                time.sleep(0.002)  # let the others in
            return found

        with ThreadPoolExecutor(THREADS) as threads:
            running = [threads.submit(ask, thread) for thread in range(THREADS)]
            for change in range(4):
                if change % 2:
                    build_index(store.root, recipe=recipe, proof=False, rebuild=True)
                else:
                    add_tombstones(store, [200 * change, 200 * change + 7], DELETED)
                with Searcher.open(store.root, device="cpu") as other:
                    states.append([answer_of(other.search(vector=one, k=20)) for one in asked])
            done.set()
            found = [one for future in running for one in future.result()]
        assert all(any(same(answer, state[number]) for state in states) for number, answer in found)
        searcher.refresh()
        assert len(searcher) == 596


def test_threads_that_refresh_at_once_do_not_bring_back_an_older_state(tmp_path):
    store = vector_store(tmp_path / "store", unit_vectors(300, DIM), 100)
    build_index(store.root)
    with Searcher.open(store.root, device="cpu") as searcher, ThreadPoolExecutor(THREADS) as threads:
        for deleted in range(1, 21):
            add_tombstones(store, [deleted], DELETED)
            list(threads.map(lambda _: searcher.refresh(), range(THREADS)))
            assert len(searcher) == 300 - deleted
