"""One job per store."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import pipeline.durable.lock
from pipeline.durable.lock import STALE_AFTER_S, store_lock
from pipeline.errors import StoreError, StoreLocked

ROOT = Path(__file__).resolve().parents[2]


def lock_of(root):
    return json.loads((root / "lock.json").read_text())


def leave_lock(root, **fields):
    now = time.time()
    lock = {"owner": "someone", "host": "elsewhere", "pid": 1, "started_at": now, "heartbeat": now}
    (root / "lock.json").write_text(json.dumps(lock | fields))


def dead_lock(root):
    """Leave the lock of a process that died while it held the lock."""
    program = (
        f"import os, pathlib, pipeline.durable.lock as l\nwith l.store_lock(pathlib.Path({str(root)!r})): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 9
    return lock_of(root)


def test_a_lock_names_its_owner_and_is_removed(tmp_path):
    with store_lock(tmp_path):
        assert lock_of(tmp_path)["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_removed_on_an_exception(tmp_path):
    with pytest.raises(KeyboardInterrupt), store_lock(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_held_by_a_live_process(tmp_path):
    program = (
        "import pathlib, sys, pipeline.durable.lock as l\n"
        f"with l.store_lock(pathlib.Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreLocked, match=rf"in use by process {holder.pid} on "), store_lock(tmp_path):
            pass
        assert lock_of(tmp_path)["pid"] == holder.pid  # the attempt changed nothing
        holder.stdin.close()
    assert list(tmp_path.iterdir()) == []


def test_lock_of_a_dead_process_is_taken_over(tmp_path):
    dead = dead_lock(tmp_path)
    with store_lock(tmp_path):
        assert lock_of(tmp_path)["owner"] != dead["owner"]
    assert list(tmp_path.iterdir()) == []


def test_another_host_is_judged_by_its_heartbeat(tmp_path):
    leave_lock(tmp_path, heartbeat=time.time() - STALE_AFTER_S / 2)
    with pytest.raises(StoreLocked, match="in use by process 1 on elsewhere"), store_lock(tmp_path):
        pass
    leave_lock(tmp_path, heartbeat=time.time() - STALE_AFTER_S - 1)
    with store_lock(tmp_path):
        assert lock_of(tmp_path)["pid"] == os.getpid()


def test_unreadable_lock_is_judged_by_its_age(tmp_path):
    (tmp_path / "lock.json").write_text("{")  # the moment between creating and filling it, or a torn write
    with pytest.raises(StoreLocked), store_lock(tmp_path):
        pass
    old = time.time() - STALE_AFTER_S - 1
    os.utime(tmp_path / "lock.json", (old, old))
    with store_lock(tmp_path):
        assert lock_of(tmp_path)["pid"] == os.getpid()


def test_the_heartbeat_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.durable.lock, "HEARTBEAT_S", 0.02)
    with store_lock(tmp_path):
        first = lock_of(tmp_path)
        while (now := lock_of(tmp_path))["heartbeat"] == first["heartbeat"]:
            time.sleep(0.01)
        assert now | {"heartbeat": 0} == first | {"heartbeat": 0}
    assert list(tmp_path.iterdir()) == []


def test_an_owner_that_lost_the_lock_leaves_the_new_lock_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.durable.lock, "HEARTBEAT_S", 0.02)
    with store_lock(tmp_path):
        leave_lock(tmp_path)
        time.sleep(0.1)  # a few heartbeats; none of them may restore the old lock
        assert lock_of(tmp_path)["owner"] == "someone"
    assert lock_of(tmp_path)["owner"] == "someone"


@pytest.mark.parametrize("stale", [False, True], ids=["free", "left-by-the-dead"])
def test_exactly_one_of_many_racers_wins(tmp_path, stale):
    num_racers, num_rounds = 8, 40
    for number in range(num_rounds):
        root = tmp_path / str(number)
        root.mkdir()
        if stale:
            leave_lock(root, heartbeat=0)
        ready, tried = threading.Barrier(num_racers), threading.Barrier(num_racers)
        outcomes = []

        def race(root=root, ready=ready, tried=tried, outcomes=outcomes):
            with ExitStack() as held:
                ready.wait()
                try:
                    held.enter_context(store_lock(root))
                    outcomes.append("won")
                except StoreLocked:
                    outcomes.append("locked")
                tried.wait()  # the winner holds the lock until all have tried

        racers = [threading.Thread(target=race) for _ in range(num_racers)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert sorted(outcomes) == ["locked"] * (num_racers - 1) + ["won"], f"round {number}"
        assert list(root.iterdir()) == []


def test_an_interrupted_takeover_does_not_block_others_for_long(tmp_path):
    leave_lock(tmp_path, heartbeat=0)
    guard = tmp_path / ".lock.takeover.tmp"
    guard.touch()
    with pytest.raises(StoreLocked), store_lock(tmp_path):
        pass
    os.utime(guard, (0, 0))
    with store_lock(tmp_path):
        assert lock_of(tmp_path)["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*lock.json: Not a directory"), store_lock(tmp_path / "file"):
        pass
