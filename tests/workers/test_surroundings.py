"""What Ray's processes on this machine start with: folders for their files and a search path. No Ray here."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline.errors import InputError
from pipeline.workers import surroundings
from pipeline.workers.surroundings import MAX_PLACE_BYTES, environment, ray_folders, search_path

HOME = Path(pipeline.__file__).parent.parent


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two folders for temporary files, `short` and `long`; the limit lies between them, and nothing else is tried."""
    short, long = tmp_path / "short", tmp_path / "a-folder-with-a-long-name"
    short.mkdir()
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(surroundings, "_SYSTEM_PLACES", (str(tmp_path / "absent"), str(short)))
    monkeypatch.setattr(surroundings, "MAX_PLACE_BYTES", len(os.fsencode(short)))
    return short, long


def test_the_limit_on_places_is_that_of_sockets():
    socket = "x" * MAX_PLACE_BYTES + "/ray-12345678/session_2026-11-26_04-29-53_543019_4194304/sockets/plasma_store"
    assert len(socket) == 107


def test_sockets_go_to_a_short_folder_and_large_files_to_the_chosen_one(places):
    short, long = places
    with ray_folders() as folders:
        assert (folders.own.parent, folders.large.parent) == (short, long)
        for folder in (folders.own, folders.large):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert list(folder.iterdir()) == []
        (folders.own / "log").touch()
    assert [*short.iterdir(), *long.iterdir()] == []


def test_one_folder_is_enough_where_the_chosen_one_is_short(places, monkeypatch):
    short, long = places
    monkeypatch.setenv("TMPDIR", str(short))
    with ray_folders() as folders:
        assert folders.own == folders.large
        assert folders.own.parent == short
    assert [*short.iterdir(), *long.iterdir()] == []


def test_kept_logs_stay_and_nothing_else(places):
    short, long = places
    with ray_folders() as folders:
        folders.is_kept = True
    assert list(short.iterdir()) == [folders.own]
    assert list(long.iterdir()) == []


def test_folders_are_removed_when_the_run_fails(places):
    short, long = places
    with pytest.raises(ZeroDivisionError), ray_folders():
        raise ZeroDivisionError
    assert [*short.iterdir(), *long.iterdir()] == []


def test_without_a_short_folder_the_advice_names_the_limit_and_nothing_stays(places, tmp_path, monkeypatch):
    short, long = places
    monkeypatch.setattr(surroundings, "_SYSTEM_PLACES", (str(tmp_path / "no"),))
    limit = len(os.fsencode(short))
    with pytest.raises(InputError, match=rf"none can be used \({tmp_path}/no: No such file.*TMPDIR.*at most {limit} "):
        ray_folders().__enter__()
    assert list(long.iterdir()) == []


def test_the_current_folder_is_not_a_place_for_files(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    monkeypatch.setattr(surroundings, "_SYSTEM_PLACES", ())
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match="none can be used"):
        ray_folders().__enter__()
    assert set(tmp_path.iterdir()) == before


def test_workers_look_where_the_driver_found_its_package_then_in_pythonpath(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    empty = os.pathsep.join(["", "/one", "vendored", ".", "/two", "/one", ""])
    monkeypatch.setenv("PYTHONPATH", empty)
    own = [] if HOME.name == "site-packages" else [str(HOME)]
    assert search_path() == [*own, "/one", str(tmp_path / "vendored"), "/two"]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # named in full
    assert search_path() == [*own, str(tmp_path)]
    monkeypatch.delenv("PYTHONPATH")
    assert search_path() == own


def test_a_checkout_comes_before_an_installed_version(tmp_path):
    package = tmp_path / "checkout" / "pipeline"
    (package / "workers").mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "workers/__init__.py", "workers/surroundings.py"):
        (package / name).write_text((HOME / "pipeline" / name).read_text())
    program = "from pipeline.workers.surroundings import search_path; print(*search_path(), sep='\\n')"
    run = subprocess.run([sys.executable, "-c", program], cwd=package.parent, capture_output=True, text=True)
    assert run.stdout.splitlines()[0] == str(package.parent)


def test_the_environment_is_as_before_afterwards(monkeypatch):
    monkeypatch.setenv("CLIPSIEVE_ONE", "1")
    monkeypatch.delenv("CLIPSIEVE_TWO", raising=False)
    with environment(CLIPSIEVE_ONE=None, CLIPSIEVE_TWO="2"):
        assert os.environ.get("CLIPSIEVE_ONE") is None
        assert os.environ["CLIPSIEVE_TWO"] == "2"
    assert os.environ["CLIPSIEVE_ONE"] == "1"
    assert "CLIPSIEVE_TWO" not in os.environ
