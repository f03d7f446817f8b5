"""How the command line starts: its search path, a current folder that is lost, folders that cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import query
from query.cli.main import main
from query.cli.verbs import VERBS

HOME = Path(query.__file__).parent.parent
SHOW_PATH = "import sys, query.cli.__main__; print(*sys.path, sep='\\n')"

SPAWN = """
import sys
from query.cli.__main__ import main
from query.cli import doctor

def spawn(settings):
    import multiprocessing
    process = multiprocessing.get_context("spawn").Process(target=print, args=("spawned",))
    process.start()
    process.join()

doctor.run = spawn
sys.exit(main(["doctor"]))
"""


def search_path(folder, *options, **environment):
    """The search path of the command line when it is started in a folder."""
    command = [sys.executable, *options, "-c", SHOW_PATH]
    run = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


@pytest.mark.parametrize("separator", ["before", "after"])
def test_an_empty_entry_of_pythonpath_does_not_mean_the_current_folder(tmp_path, separator):
    entries = ["", str(HOME)] if separator == "before" else [str(HOME), ""]
    found = search_path(tmp_path, PYTHONPATH=os.pathsep.join(entries))
    assert not {str(tmp_path), "", "."} & set(found)
    assert str(HOME) in found


def test_the_current_folder_counts_if_the_package_is_in_it_or_pythonpath_names_it(tmp_path):
    assert set(search_path(HOME)) & {"", str(HOME)}
    named = os.pathsep.join([str(tmp_path), str(HOME)])
    assert str(tmp_path) in search_path(tmp_path, "-P", PYTHONPATH=named)


def test_the_module_runs_nothing_of_the_current_folder(tmp_path):
    for name in ("pipeline", "indexer", "pydantic", "yaml", "difflib", "ctypes"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('trapped')")
    command = [sys.executable, "-m", "query.cli", "verify", "no-such-store"]
    environment = os.environ | {"PYTHONPATH": str(HOME)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (4, "")
    assert "no store at" in run.stderr


def test_processes_of_a_verb_run_nothing_of_the_current_folder(tmp_path):
    for name in ("multiprocessing", "pickle", "pipeline"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('trapped')")
    environment = os.environ | {"PYTHONPATH": str(HOME)}
    command = [sys.executable, "-c", SPAWN]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "spawned\n", "")


@pytest.mark.parametrize("verb", VERBS)
def test_a_lost_current_folder_is_one_plain_line(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", "relative")
    here = Path.cwd()
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    try:
        gone.rmdir()
        assert main([*verb.split(), str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    finally:
        os.chdir(here)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: the current folder no longer exists; change to one that does, for example `cd ~`\n"


def test_the_module_starts_in_a_lost_folder(tmp_path):
    script = f"mkdir gone && cd gone && rmdir ../gone && exec {sys.executable} -m query.cli --version"
    environment = os.environ | {"PYTHONPATH": str(HOME)}
    run = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("clipsieve ")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/']"), "; set TMPDIR to a folder that"),
        (PermissionError(13, "Permission denied", "/a/file"), "error: Permission denied: /a/file\n"),
        (OSError("plain words"), "error: plain words\n"),
    ],
)
def test_errors_of_the_system_say_only_what_is_known(error, line, monkeypatch, capsys):
    def fail(verb, argv):
        raise error

    monkeypatch.setattr("query.cli.main._run", fail)
    assert main(["doctor"]) == 1
    assert line in capsys.readouterr().err
