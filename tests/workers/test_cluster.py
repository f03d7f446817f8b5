"""A Ray cluster of several nodes on this machine: every node works, nodes join and leave."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

import pipeline
from tests.drills.kill import collection

pytestmark = pytest.mark.kill

CLIPSIEVE = str(Path(sys.executable).with_name("clipsieve"))
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
PATIENCE_S = 300


@pytest.fixture
def cluster(monkeypatch):
    """A cluster whose head has one core."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={**NODE, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return collection(tmp_path_factory.mktemp("cluster") / "photos", 160)


@pytest.fixture
def start(tmp_path, tiny_model, photos):
    """Start `clipsieve embed` on the photos, with extra arguments."""

    def start_embed(store, *more, source=photos):
        command = [CLIPSIEVE, "embed", str(source), "--out", str(tmp_path / store), "--model", tiny_model]
        command += ["--shard-size", "8", "--batch-size", "4", *more]
        # in another folder: Ray's workers look for packages in the folder where their driver was started
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start_embed


def parts(store):
    return {path.name: path.read_bytes() for path in sorted((store / "embeddings").glob("*.parquet"))}


def events(store, name):
    path = store / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == name]


def wait_for(condition, process):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def end(process):
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    return output


def test_a_node_lost_in_mid_run_costs_nothing(cluster, start, tmp_path):
    nodes = [cluster.add_node(**NODE), cluster.add_node(**NODE)]
    run = start("lost", "--ray-address", cluster.address)
    wait_for(lambda: len(events(tmp_path / "lost", "shard_committed")) >= 3, run)
    cluster.remove_node(nodes[1], allow_graceful=False)  # SIGKILL to its raylet, which takes its workers down
    end(run)
    assert events(tmp_path / "lost", "run_started")[0]["cpus"] == 3
    end(start("alone"))
    lost, alone = parts(tmp_path / "lost"), parts(tmp_path / "alone")
    assert len(lost) == 20
    assert lost == alone
    assert subprocess.run([CLIPSIEVE, "verify", tmp_path / "lost"], capture_output=True).returncode == 0


def test_a_node_that_joins_gets_work(cluster, start, photos, tmp_path):
    lines = ["path,key"] + [f"{path},{n}/{path.name}" for n in range(6) for path in sorted(photos.iterdir())]
    (tmp_path / "long.csv").write_text("\n".join(lines))  # long enough for a node to join
    more = ("--ray-address", cluster.address, "--workers", "2", "--min-workers", "1", "--key-column", "key")
    run = start("grown", *more, source=tmp_path / "long.csv")
    wait_for(lambda: events(tmp_path / "grown", "run_started"), run)
    cluster.add_node(**NODE)
    end(run)
    assert events(tmp_path / "grown", "worker_joined")


def test_another_version_of_the_code_is_refused(start, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shutil.copytree(Path(pipeline.__file__).parent, tmp_path / "other" / "pipeline")
    with (tmp_path / "other" / "pipeline" / "plan.py").open("a") as file:
        file.write("# another version\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={**NODE, "include_dashboard": False})
    monkeypatch.delenv("PYTHONPATH")
    try:
        run = start("refused", "--ray-address", cluster.address)
        _, errors = run.communicate(timeout=PATIENCE_S)
    finally:
        cluster.shutdown()
    assert run.returncode == 5, errors
    assert "install the same version on every node" in errors
    assert not (tmp_path / "refused").exists()
