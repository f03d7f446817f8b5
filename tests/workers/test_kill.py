"""Real kills at random moments: nothing is lost, nothing is duplicated, and the bytes are the same.

For a longer drill of the same kind, run `python tests/drills/kill.py --kills 200`.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from pipeline.store.parts import read_part
from tests.drills.kill import collection, drill

pytestmark = pytest.mark.kill

CLIPSIEVE = str(Path(sys.executable).with_name("clipsieve"))
NUM_KILLS = 24


def test_runs_killed_at_random_moments_write_the_same_bytes(tmp_path, tiny_model, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    photos = collection(tmp_path / "photos", 1200)
    command = [CLIPSIEVE, "embed", str(photos), "--model", tiny_model, "--shard-size", "40", "--batch-size", "4"]
    result = drill(command, tmp_path, NUM_KILLS, seed=5, log=print)
    assert sum(result.kills.values()) >= 20
    assert set(result.kills) == {"driver", "all", "raylet", "worker", "decoder"}
    assert result.num_orphans == 0


@pytest.fixture
def small_disk(tmp_path):
    """A separate file system of 400 kB; mounting it requires privileges."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_or_read_only_disk_loses_nothing(tmp_path, tiny_model, monkeypatch, small_disk):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    photos = collection(tmp_path / "photos", 40)
    command = [CLIPSIEVE, "embed", str(photos), "--model", tiny_model, "--shard-size", "5", "--batch-size", "4"]
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, capture_output=True)

    def embed():
        return subprocess.run([*command, "--out", small_disk / "store"], capture_output=True, text=True)

    filler = small_disk / "filler"
    filler.write_bytes(bytes(340_000))
    full = embed()
    assert full.returncode == 4, full.stderr
    assert "No space left on device; free up space" in full.stderr
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    read_only = embed()
    assert read_only.returncode == 4, read_only.stderr
    assert "Read-only file system; choose another --out" in read_only.stderr
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    good = embed()
    assert good.returncode == 0, good.stderr
    assert _parts(small_disk / "store") == _parts(tmp_path / "whole")


def test_a_source_that_is_briefly_unavailable(tmp_path, tiny_model, monkeypatch):
    """S3 becomes unavailable for a few seconds in mid-run, and the run still finishes."""
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "y", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    photos = collection(tmp_path / "photos", 40)
    server = ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    bucket = fs.S3FileSystem(endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True)
    bucket.create_dir("photos")
    for path in sorted(photos.iterdir()):
        with bucket.open_output_stream(f"photos/set/{path.name}") as stream:
            stream.write(path.read_bytes())
    command = [CLIPSIEVE, "embed", "--model", tiny_model, "--shard-size", "5", "--batch-size", "4"]
    subprocess.run([*command, str(photos), "--out", tmp_path / "whole"], check=True, capture_output=True)

    store = tmp_path / "store"
    run = subprocess.Popen([*command, "s3://photos/set", "--out", store], stderr=subprocess.PIPE, text=True)
    try:
        while not list((store / "embeddings").glob("*.stats.json")):
            assert run.poll() is None, run.communicate()[1]
            time.sleep(0.1)
        server.stop()  # its objects stay in this process's memory
        time.sleep(5)
        server = ThreadedMotoServer(port=port)
        server.start()
        errors = run.communicate(timeout=300)[1]
    finally:
        server.stop()
    assert run.returncode == 0, errors
    assert _vectors(store) == _vectors(tmp_path / "whole")


def _parts(store):
    return {path.name: path.read_bytes() for path in sorted((store / "embeddings").glob("*.parquet"))}


def _vectors(store):
    tables = [read_part(path, ["id", "key", "status", "embedding"]) for path in sorted(store.rglob("part-*.parquet"))]
    return [row for table in tables for row in table.to_pylist()]
