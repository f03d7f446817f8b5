"""A new index takes the place of the old one: no answer is of both, nothing waits for it, and the old one is let go."""

import gc
import shutil
import threading
import weakref
from pathlib import Path

import httpx
import pytest

import query.opened
from indexer import build_index
from pipeline.store.layout import Store
from pipeline.store.tombstones import DELETED, add_tombstones
from query import Searcher
from query.opened import Opened
from tests.kit.growing_store import NUM_QUERIES, GrowingStore, K
from tests.kit.service import NO_MODEL, running
from tests.kit.vector_store import unit_vectors, vector_store

CLIENTS = 4
SWAPS = 12


def held_by_this_process(root):
    """Files of a store that are mapped or open."""
    mapped = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if str(root) in line]
    files = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return len(mapped), len([file for file in files if str(root) in file])


def test_no_request_fails_and_no_answer_is_mixed_while_the_index_is_replaced(tmp_path):
    growing = GrowingStore(tmp_path / "store")
    answers, done = [[] for _ in range(CLIENTS)], threading.Event()
    with running(growing.store.root, flags=("--refresh-s", "0.02", "--device", "cpu"), prelude=NO_MODEL) as service:

        def ask(number):
            with httpx.Client() as client:
                while not done.is_set():
                    asked = len(answers[number]) % NUM_QUERIES
                    answers[number].append((asked, client.get(f"{service.url}/search", params={"like": asked, "k": K})))

        clients = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(SWAPS):
            growing.grow()
        while httpx.get(f"{service.url}/info").json()["stores"][0]["num_images"] < growing.num_images:
            pass
        done.set()
        for client in clients:
            client.join()
        metrics = httpx.get(f"{service.url}/metrics").text
        assert service.end() == 0
        assert "Traceback" not in service.log.read_text()
    assert {answer.status_code for one in answers for _, answer in one} == {200}
    versions = {}
    for one in answers:
        steps = []
        for asked, answer in one:
            found = answer.json()
            step = growing.step_of(asked, [hit["key"] for hit in found["hits"]], found["num_images"])
            assert step is not None, found
            versions.setdefault(step, set()).add(found["version"])
            assert {hit["image"].split("v=")[1] for hit in found["hits"]} == {found["version"]}
            steps.append(step)
        assert steps == sorted(steps)  # none falls back to an older state
    assert all(len(of_step) == 1 for of_step in versions.values())
    assert len(versions) > SWAPS / 3  # else too little was seen to mean anything
    assert 'clipsieve_index_swaps_total{store="store"}' in metrics


def test_the_new_state_is_warm_before_it_answers(photos_store, tmp_path):
    store = Store(shutil.copytree(photos_store, tmp_path / "store"))
    with Searcher.open(store.root, device="cpu") as searcher:
        searcher.search("a dog", where="width > 50")
        add_tombstones(store, [0], DELETED)
        assert searcher.refresh()
        opened, _ = searcher.current
        opened._mask = None  # whoever needs it now would fail
        opened.text_spread = lambda queries, known=opened._text_spread: known
        assert opened._text_spread is not None
        assert "background" in vars(opened)
        assert len(searcher.search("a dog", k=20, where="width > 50")) <= 11
        with pytest.raises(TypeError):
            searcher.search("a dog", where="width > 51")


def test_a_condition_on_a_column_that_is_no_longer_there_does_not_stop_the_new_state(tmp_path):
    store = vector_store(tmp_path / "store", unit_vectors(300, 16), 100, columns={"size": "int64"})
    build_index(store.root, proof=False)
    with Searcher.open(store.root, device="cpu") as searcher:
        vector = unit_vectors(1, 16)[0]
        searcher.search(vector=vector, where="size > 3")
        shutil.rmtree(store.root)
        build_index(vector_store(store.root, unit_vectors(300, 16), 100).root, proof=False)
        assert searcher.refresh()
        assert len(searcher.search(vector=vector, where="width > 3")) == 10


def test_a_state_that_changes_while_it_is_opened_is_opened_again(tmp_path, monkeypatch):
    store = vector_store(tmp_path / "store", unit_vectors(300, 16), 100)
    build_index(store.root, proof=False)
    changes = [3, 5]
    real = query.opened.open_index

    def open_index(view, *args):
        found = real(view, *args)
        if changes:
            add_tombstones(store, [changes.pop()], DELETED)
        return found

    monkeypatch.setattr(query.opened, "open_index", open_index)
    opened = Opened.open(store.root, False, "cpu")
    assert not changes
    assert opened.is_current()
    assert opened.index.num_rows == 298


def test_the_old_state_is_let_go_at_once(tmp_path):
    store = vector_store(tmp_path / "store", unit_vectors(3_000, 16), 1_000)
    build_index(store.root, recipe="IVF8,Flat", proof=False)
    vector = unit_vectors(1, 16)[0]
    with Searcher.open(store.root, device="cpu") as searcher:
        held = []
        gc.disable()
        try:
            for number in range(20):
                searcher.search(vector=vector, where="width > 150", unique=True, k=20)
                old = weakref.ref(searcher.current[0])
                if number % 5 == 4:
                    build_index(store.root, recipe="IVF8,Flat", proof=False, rebuild=True)
                else:
                    add_tombstones(store, [number], DELETED)
                assert searcher.refresh()
                assert old() is None
                held.append(held_by_this_process(store.root))
        finally:
            gc.enable()
    assert len(set(held)) == 1
    assert held[0][0] > 0
