"""How Ray starts on this machine, in processes of their own: imports, folders, what shows on the terminal."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline.errors import InputError
from pipeline.workers import session, surroundings

pytestmark = pytest.mark.ray

HOME = Path(pipeline.__file__).parent.parent
CLIPSIEVE = str(Path(sys.executable).with_name("clipsieve"))
HOSTILE = ["pipeline", "indexer", "open_clip", "faiss", "torch", "numpy", "ray", "pyarrow", "multiprocessing", "yaml"]

WHAT_A_WORKER_SEES = """
import os, sys
sys.path[:] = [entry for entry in sys.path if entry != os.getcwd()]
import json
import ray
from pipeline.workers.session import logs, ray_session

@ray.remote
def look():
    import os, sys, pipeline
    return {"path": sys.path, "file": pipeline.__file__,
            "folder": os.getcwd(), "safe": os.environ["PYTHONSAFEPATH"], "token": "RAY_AUTH_TOKEN" in os.environ}

with ray_session(None):
    print(json.dumps(ray.get(look.remote()) | {"logs": logs()}))
"""

FAILURES = """
import os, time
import ray
from pipeline.errors import WorkerError
from pipeline.workers.session import ray_session, wait

@ray.remote(max_retries=0)
def end():
    os._exit(3)

@ray.remote
def fail():
    raise ValueError("never asked for")

@ray.remote
def last():
    time.sleep(600)

try:
    with ray_session(None):
        ray.wait([end.remote()])
        ray.wait([fail.remote()])
        waiting = last.remote()
        time.sleep(2)  # Ray prints with a delay
        for process in ray._private.worker._global_node.all_processes["raylet"]:
            process.process.kill()
        wait([waiting])
except WorkerError as error:
    time.sleep(2)
    print(error)
"""


class Failed(Exception):
    """Stands for any error of Ray."""


def in_python(program, **options):
    return subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=300, **options)


def variables(**changes):
    found = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", *changes)}
    # this package, wherever the test runs; the last entry is empty, which means the current folder
    return found | {"PYTHONPATH": f"{HOME}{os.pathsep}"} | {k: v for k, v in changes.items() if v is not None}


@pytest.fixture
def hostile(tmp_path, photos):
    """A data set with modules that leave a file behind if anything imports them."""
    folder = tmp_path / "set"
    folder.mkdir()
    for path in sorted(photos.glob("*.*"))[:2]:
        (folder / path.name).write_bytes(path.read_bytes())
    trap = f"import os\nopen({str(tmp_path / 'trapped')!r}, 'a').write(__file__)\nos._exit(9)\n"
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(trap)
    for name in ("pipeline", "PIL"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(trap)
    return folder


@pytest.mark.parametrize("command", [[CLIPSIEVE], [sys.executable, "-m", "query.cli"]], ids=["script", "module"])
def test_embed_runs_nothing_of_the_data_set(hostile, tiny_model, tmp_path, command):
    command = [*command, "embed", ".", "--out", str(tmp_path / "store"), "--model", tiny_model]
    environment = variables(PYTHONPATH=str(HOME))  # without an empty entry, which only the script itself can drop
    run = subprocess.run(command, cwd=hostile, env=environment, capture_output=True, text=True, timeout=300)
    assert not (tmp_path / "trapped").exists()
    assert run.returncode == 0, run.stderr
    assert "2 of 2 images embedded" in run.stdout


def test_workers_see_what_the_driver_sees_and_nothing_of_the_current_folder(hostile, tmp_path):
    temporary = tmp_path / ("long" * 30)
    temporary.mkdir()
    run = in_python(WHAT_A_WORKER_SEES, cwd=hostile, env=variables(TMPDIR=str(temporary), HOME="/proc/sys"))
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "trapped").exists()
    seen = json.loads(run.stdout)
    assert Path(seen["file"]).parent.parent == HOME
    assert seen["folder"] == str(hostile)  # relative names in the environment mean the same as for the driver
    assert not {"", ".", str(hostile), str(Path(sys.executable).parent)} & set(seen["path"])
    assert seen["safe"] == "1"
    assert seen["token"]
    logs = Path(seen["logs"].removeprefix("see the logs in "))
    assert temporary not in logs.parents
    assert not logs.parent.parent.exists()
    assert list(temporary.iterdir()) == []


def test_ray_prints_nothing_when_its_processes_die():
    run = in_python(FAILURES, env=variables(), cwd="/")
    [line] = run.stdout.splitlines()
    assert line.startswith("Ray's processes on this machine died")
    assert "\x1b" not in run.stderr
    assert "Unhandled error" not in run.stderr


def test_a_checkout_is_used_beside_an_installed_version(tmp_path, tiny_model, photos):
    for name in ("pipeline", "indexer", "query"):
        shutil.copytree(HOME / name, tmp_path / "checkout" / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "checkout" / "pipeline" / "machine.py").open("a") as file:
        file.write("# another version\n")
    command = [
        sys.executable,
        "-m",
        "query.cli",
        "embed",
        str(photos / "more"),
        "--out",
        "store",
        "--model",
        tiny_model,
    ]
    environment = variables(PYTHONPATH=str(HOME))
    run = subprocess.run(command, cwd=tmp_path / "checkout", env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.fixture
def read_only(tmp_path):
    """Runs a program where the home folder and those for temporary files are read-only and TMPDIR is full."""
    full, room, home = (tmp_path / name for name in ("full", "room", "home"))
    for folder in (full, room, home):
        folder.mkdir()

    def run(program, *more):
        mounts = [f"mount -t tmpfs -o size=64k tmpfs {full}", f"head -c 64k /dev/zero > {full}/filler"]
        mounts += [f"mount -t tmpfs tmpfs {room}"]  # the only folder that can be written
        for place in ("/tmp", "/var/tmp", home, *more):
            mounts += [f"mount --rbind {place} {place}", f"mount -o remount,bind,ro {place}"]
        script = f'{" && ".join(mounts)} || exit 77; exec "$@"'
        command = ["unshare", "-rm", "bash", "-c", script, "-", sys.executable, "-P", "-c", program]
        environment = variables(TMPDIR=str(full), HOME=str(home), RAY_TMPDIR=None)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd="/", env=environment)
        except OSError as error:
            pytest.skip(f"no `unshare`: {error}")
        if done.returncode == 77 or "unshare: " in done.stderr:
            pytest.skip(f"mount namespaces are not allowed: {done.stderr.strip()}")
        return done

    return run


def test_a_full_disk_and_read_only_folders_leave_the_next_place(read_only):
    run = read_only(WHAT_A_WORKER_SEES)
    assert run.returncode == 0, run.stderr
    logs = Path(json.loads(run.stdout)["logs"].removeprefix("see the logs in "))
    assert Path("/dev/shm") in logs.parents
    assert not logs.parent.parent.exists()


def test_without_any_place_the_advice_is_right_and_names_no_logs(read_only, photos, tiny_model, tmp_path):
    command = ["embed", str(photos), "--out", str(tmp_path / "room" / "store"), "--model", tiny_model]
    program = f"import sys; from query.cli.main import main; sys.exit(main({command!r}))"
    run = read_only(program, "/dev/shm")
    assert run.returncode == 3, run.stderr
    [line] = run.stderr.splitlines()
    assert line.startswith(
        f"error: Ray needs a folder for its files, but none can be used ({tmp_path / 'full'}: No space"
    )
    assert "; /dev/shm: Read-only file system); set TMPDIR to a folder that you can write" in line
    assert "logs" not in line


@pytest.mark.parametrize("has_logs", [True, False])
def test_a_failed_start_names_its_cause_and_only_logs_that_exist(has_logs, monkeypatch, tmp_path):
    def fail(folders):
        if has_logs:
            folders.logs.mkdir(parents=True)
            (folders.logs / "raylet.err").touch()
        raise Failed("\x1b[31mno\x1b[0m room\nanywhere")

    # not the real Ray, which cannot be made to fail on demand, and which other tests may be using here
    monkeypatch.setattr(session, "_start", fail)
    monkeypatch.setattr(session.ray, "shutdown", lambda: None)
    monkeypatch.setattr(session.ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(surroundings, "MAX_PLACE_BYTES", 1000)
    with pytest.raises(InputError, match="cannot start Ray on this machine: no room anywhere; ") as caught:
        session.ray_session(None).__enter__()
    if has_logs:
        named = Path(str(caught.value).partition("see the logs in ")[2])
        assert (named / "raylet.err").exists()
    else:
        assert str(caught.value).endswith("run `clipsieve doctor`")
        assert list(tmp_path.iterdir()) == []
