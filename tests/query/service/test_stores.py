"""The stores of a service: their names, and what happens when they change for the better or the worse."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from indexer import build_index
from pipeline.compact import compact
from pipeline.errors import ConfigError, InputError, UnfinishedStore
from pipeline.settings.store import CompactSettings
from pipeline.store.commit_markers import committed_markers
from pipeline.store.tombstones import DELETED, add_tombstones
from query.queries.options import Options
from query.queries.request import Request
from query.service.metrics import Metrics
from query.service.problems import ProblemError
from query.service.settings import ServeSettings
from query.service.stores import Stores
from tests.kit.vector_store import add_vectors, unit_vectors, vector_store


def indexed(root, seed=0, count=300):
    store = vector_store(root, unit_vectors(count, 16, seed), 100)
    build_index(store.root, proof=False)
    return store


def opened(*folders, **settings):
    store, store2 = [*folders, None][:2]
    return Stores(ServeSettings(store=store, store2=store2, device="cpu", **settings), Metrics())


def counted(stores, name):
    metrics = next(iter(stores))._metrics
    return metrics.registry.get_sample_value(f"clipsieve_index_{name}_total", {"store": "s"}) or 0


def test_stores_are_named_after_their_folders_and_as_many_parents_as_tell_them_apart(tmp_path):
    for name in ("one/store", "two/store", "other"):
        indexed(tmp_path / name)
    assert [store.name for store in opened(tmp_path / "one/store", tmp_path / "other")] == ["store", "other"]
    assert [store.name for store in opened(tmp_path / "one/store", tmp_path / "two/store")] == [
        "one/store",
        "two/store",
    ]


def test_a_store_cannot_be_compared_with_itself(tmp_path):
    indexed(tmp_path / "store")
    (tmp_path / "link").symlink_to(tmp_path / "store")
    for same in (tmp_path / "store", tmp_path / "store" / "..", tmp_path / "link"):
        again = tmp_path / "store" if same.name == ".." else same
        with pytest.raises(ConfigError, match="given twice"):
            opened(tmp_path / "store", again)


def test_two_stores_of_different_images_bring_a_warning(tmp_path, caplog):
    def warnings_of(name):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "clipsieve.serve"):
            opened(tmp_path / "store", tmp_path / name).warn_of_few_shared_images()
        return [record.getMessage() for record in caplog.records]

    indexed(tmp_path / "store")
    indexed(tmp_path / "same", seed=1)
    other = indexed(tmp_path / "other", count=900)  # the keys of a third of its images are in the first store
    assert warnings_of("same") == []
    [line] = warnings_of("other")
    assert line.startswith("only 33% of the images of other are in store")
    assert other.root.name in line


def test_problems_name_the_store_and_not_its_folder(tmp_path, monkeypatch):
    indexed(tmp_path / "s")
    monkeypatch.chdir(tmp_path / "s")
    for folder in (tmp_path / "s", Path(), Path("../s")):
        served = opened(folder).named(None)
        with pytest.raises(ProblemError) as raised:
            served.row(5000)
        assert raised.value.detail.startswith("the index of s has no image with the id 5000")
        question = Request(like=(0,), options=Options(where=("score > 0.5",)))
        with pytest.raises(ProblemError) as raised:
            asyncio.run(served.ask(question))
        assert "`score > 0.5`" in raised.value.detail


def test_a_deletion_and_a_new_index_are_seen_and_counted(tmp_path):
    store = indexed(tmp_path / "s")
    stores = opened(store.root)
    served = stores.named(None)
    assert not served.refresh()
    versions = [served.searcher.current[0].version]
    add_tombstones(store, [0, 7], DELETED)
    assert served.refresh()
    versions.append(served.searcher.current[0].version)
    build_index(store.root, proof=False, rebuild=True)
    assert served.refresh()
    versions.append(served.searcher.current[0].version)
    assert len(set(versions)) == 3
    assert (counted(stores, "swaps"), counted(stores, "swap_failures")) == (2, 0)
    assert served._metrics.registry.get_sample_value("clipsieve_index_vectors", {"store": "s"}) == 298


def test_deleted_images_are_not_found_even_while_new_ones_have_no_index(tmp_path):
    store = indexed(tmp_path / "s")
    served = opened(store.root).named(None)
    add_vectors(store, unit_vectors(100, 16, 1), 100)
    add_tombstones(store, [0, 7], DELETED)
    assert served.refresh()
    assert len(served.searcher) == 298
    compact(CompactSettings(store=store.root))
    served.refresh()
    assert len(served.searcher) == 298
    build_index(store.root, proof=False)
    assert served.refresh()
    assert len(served.searcher) == 398


def test_a_broken_index_is_logged_once_and_the_old_one_answers(tmp_path, caplog):
    store = indexed(tmp_path / "s")
    stores = opened(store.root)
    served = stores.named(None)
    manifest = store.index_dir / "manifest.json"
    good = manifest.read_bytes()
    with caplog.at_level(logging.INFO, "clipsieve.serve"):
        manifest.write_text("{")
        assert [served.refresh() for _ in range(3)] == [False] * 3
        [record] = caplog.records
        assert "the old index still answers" in record.getMessage()
        assert counted(stores, "swap_failures") == 1
        assert len(served.searcher.search(vector=unit_vectors(1, 16)[0])) == 10
        manifest.write_bytes(good)
        assert served.refresh()
        manifest.unlink()
        assert not served.refresh()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert (counted(stores, "swaps"), counted(stores, "swap_failures")) == (1, 2)


def test_a_store_that_a_job_is_writing_says_to_wait_for_the_job(tmp_path):
    store = vector_store(tmp_path / "s", unit_vectors(300, 16), 100)
    build_index(store.root, proof=False)
    marker = sorted(store.root.glob("embeddings/*.stats.json"))[-1]
    marker.unlink()
    assert len(committed_markers(store, store.read_record())) == 2
    with pytest.raises(UnfinishedStore, match=r"run the same embed command again to finish it, or pass --partial$"):
        opened(store.root)
    holder = f'{{"pid": 1, "host": "there", "place": "elsewhere", "heartbeat": {time.time()}}}'
    (store.root / "lock.json").write_text(holder)
    with pytest.raises(UnfinishedStore, match=r"wait for process 1 on there, which is writing it, or pass --partial$"):
        opened(store.root)
    assert len(opened(store.root, partial=True)) == 1


@pytest.mark.parametrize("is_relative", [True, False])
def test_errors_show_no_folder_of_the_store_or_its_model(tmp_path, monkeypatch, is_relative):
    indexed(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    [store] = opened(Path("store") if is_relative else tmp_path / "store")
    model, other = store.searcher.encoder.source.model, tmp_path / "store-2"
    error = InputError(f"cannot load model {model}, asked for {tmp_path / 'store'}/x and {other}")
    assert store.problem(error).detail == f"cannot load model {store.model}, asked for store/x and {other}"
    with pytest.raises(ProblemError, match=r"^the index of store has no image with the id 999"):
        store.row(999)
