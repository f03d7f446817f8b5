"""An import that was killed at any moment goes on with the same command, to the same bytes."""

import signal
import subprocess
import sys

import pytest

from pipeline.durable.lock import store_lock
from pipeline.errors import ConfigError, FingerprintMismatch, StoreError, StoreLocked
from pipeline.store.layout import Store
from tests.kit.damage import check
from tests.kit.embeddings import NOWHERE, run_import, unit_vectors, write_clip_retrieval, write_parquet

KILLED = """
import contextlib, os, signal, sys
sys.modules["torch"] = None  # not needed, and slow to load
import pipeline.imported.import_store as story
from query.cli.main import main
left, sync, lock = int(sys.argv[1]), os.fsync, story.store_lock
def count(descriptor):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)
@contextlib.contextmanager
def locked(root):
    with lock(root):
        os.fsync = count
        yield
story.store_lock = locked
sys.exit(main(sys.argv[2:]))
"""
KILLS = (1, 2, 1, 3, 2, 1, 2, 3, 8)
"""How often each run syncs a file or a folder before it is killed: before and after each kind of file is renamed."""


def files_of(root):
    kept = (
        *root.glob("plan/*.json"),
        *root.glob("embeddings/*.parquet"),
        root / "run.json",
        root / "tombstones.parquet",
    )
    return {path.relative_to(root): path.read_bytes() for path in kept}


def test_killed_imports_write_the_same_bytes(tmp_path):
    source = write_clip_retrieval(tmp_path / "source", {0: 7, 1: 4})
    argv = ["import", str(source), "--model", NOWHERE, "--shard-size", "2"]

    def run(num_syncs, out):
        command = [sys.executable, "-c", KILLED, str(num_syncs), *argv, "--out", str(out)]
        return subprocess.run(command, capture_output=True, text=True)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(-1, whole).returncode == 0
    assert len(list(whole.glob("embeddings/*.parquet"))) == 6
    before = 0
    for num_syncs in KILLS:
        assert run(num_syncs, killed).returncode == -signal.SIGKILL
        found = len(list(killed.glob("embeddings/*.stats.json")))
        assert found >= before  # nothing that was committed is lost
        before = found
    assert 0 < before < 6
    done = run(-1, killed)
    assert done.returncode == 0, done.stderr
    assert "11 of 11 rows imported" in done.stdout
    assert files_of(killed) == files_of(whole)
    report = check(Store(killed))
    assert (report.findings, report.leftovers) == ([], [])


@pytest.fixture
def source(tmp_path):
    return write_parquet(tmp_path / "v.parquet", unit_vectors(6), key=[f"k{n}" for n in range(6)], n=list(range(6)))


@pytest.fixture
def begun(tmp_path, source):
    """A store that lacks the middle one of three shards."""
    run_import(source, tmp_path / "store", shard_size=2)
    store = Store(tmp_path / "store")
    store.marker_path(1).unlink()
    return store


def test_another_command_does_not_finish_it(begun, source, tmp_path):
    with pytest.raises(FingerprintMismatch, match=r"claimed by .*, 8 values each, but this import is of other"):
        run_import(source, begun.root, model="other")
    with pytest.raises(ConfigError, match=r"carries the columns \(none\), but this source has n \(int64\)"):
        run_import(source, begun.root, columns="n")
    with pytest.raises(ConfigError, match="created with --shard-size 2, but this run asks for 3"):
        run_import(source, begun.root, shard_size=3)
    with pytest.raises(StoreError, match=r"is not what the store .* was made of"):
        run_import(source, begun.root, key_column="n")
    other = write_parquet(tmp_path / "w.parquet", unit_vectors(6), key=[f"k{n}" for n in range(6)])
    with pytest.raises(StoreError, match=r"is not what the store .* was made of"):
        run_import(other, begun.root)
    assert run_import(source, begun.root).num_imported == 2
    assert check(begun).findings == []


def test_a_source_that_changed_is_refused(begun, source):
    write_parquet(source, unit_vectors(6, seed=1), key=[f"k{n}" for n in range(6)], n=list(range(6)))
    with pytest.raises(StoreError, match=r"its files \(size, time\) or columns have changed"):
        run_import(source, begun.root)


def test_a_finished_store_needs_no_model(begun, source):
    warnings = []
    run_import(source, begun.root, warnings.append)
    assert warnings == []


def test_two_imports_at_once(begun, source):
    with store_lock(begun.root), pytest.raises(StoreLocked, match="is in use by process"):
        run_import(source, begun.root)


def test_a_folder_that_is_no_store_is_left_alone(tmp_path, source):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text").write_text("mine")
    with pytest.raises(StoreError, match="is not a store and not empty"):
        run_import(source, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["text"]
