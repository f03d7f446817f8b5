"""The speeds of this machine: measured once, then taken from the cache."""

import json

import faiss
import pytest

from indexer.choose import choose
from indexer.planning import calibration
from indexer.planning.planner import Limits, Machine, plan
from indexer.planning.sizes import CODES
from indexer.settings import IndexSettings
from pipeline.store.view import StoreView
from tests.kit.index_speeds import speeds


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSIEVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "index-speed.json"


def test_a_calibration_is_measured_once(cache, tmp_path, monkeypatch):
    threads = faiss.omp_get_max_threads()
    found = calibration.calibrate(32, tmp_path)
    assert faiss.omp_get_max_threads() == threads
    assert set(found.cached.scan) == set(found.uncached.scan) == set(found.encode_us) == set(CODES)
    assert min(found.assign_gmacs, found.cached.coarse_gmacs, found.graph_add_us, found.read_mb_s, found.write_mb_s) > 0
    assert min(found.flat_row_ns.values()) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    monkeypatch.setattr(calibration, "_measure", None)
    assert calibration.calibrate(32, tmp_path) == found
    (key,) = json.loads(cache.read_text())["found"]
    assert f"{faiss.SIMDConfig.get_level_name()}; 32 wide" in key
    assert plan(100_000, 32, Limits(), Machine(threads=1, memory_bytes=10**9), found).winner


def test_a_plan_measures_where_the_index_will_be_and_leaves_nothing(cache, store):
    before = sorted(store.root.iterdir())
    settings = IndexSettings(store=store.root, max_index_memory="1G", dry_run=True)
    assert choose(settings, StoreView.open(store.root), lambda: "no texts").plan.candidates
    assert sorted(store.root.iterdir()) == before
    assert cache.exists()


def test_a_folder_that_cannot_be_written(cache, tmp_path):
    assert calibration.calibrate(32, tmp_path / "missing").write_mb_s > 0


def test_an_odd_width(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "_LISTS", 32)
    found = calibration.calibrate(9, tmp_path)
    assert set(found.cached.scan) == {"fp32", "fp16", "SQ8"}
    assert plan(100_000, 9, Limits(), Machine(threads=1, memory_bytes=10**9), found).winner


def test_a_damaged_cache_is_written_again(cache, tmp_path, monkeypatch):
    cache.parent.mkdir()
    cache.write_text("{")
    known = speeds(32)
    monkeypatch.setattr(calibration, "_measure", lambda dim, folder: known)
    assert calibration.calibrate(32, tmp_path) == known
    assert list(json.loads(cache.read_text())["found"].values()) == [known.model_dump()]
