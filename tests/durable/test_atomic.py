"""Files appear whole or not at all."""

import json
import resource
from contextlib import contextmanager

import pytest

from pipeline.durable.atomic import write_atomically, write_json
from pipeline.errors import StoreError


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "value.json"
    for value in ({"a": 1}, {"a": "snö 雪"}):
        write_json(path, value)
        assert json.loads(path.read_text(encoding="utf-8")) == value
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("new, half")
        assert path.read_text() == "old"
        temporary.write_text("new, whole")

    write_atomically(path, write)
    assert path.read_text() == "new, whole"


def test_a_failing_writer_leaves_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def small_files_only():
    # not a fixture: the limit must be lifted before pytest writes its own report, perhaps to a file
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_space(tmp_path):
    # the kernel stops the write half-way, as on a full disk
    with (
        pytest.raises(
            StoreError, match=r"cannot write .*file: File too large; free up space or choose another location"
        ),
        small_files_only(),
    ):
        write_atomically(tmp_path / "file", lambda temporary: temporary.write_bytes(bytes(5000)))
    assert list(tmp_path.iterdir()) == []


def test_no_folder(tmp_path):
    (tmp_path / "not-a-folder").write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        write_json(tmp_path / "not-a-folder" / "file", 1)


def test_two_writers_never_share_a_temporary_file(tmp_path):
    names = []
    for _ in range(2):
        write_atomically(tmp_path / "file", lambda temporary: (names.append(temporary), temporary.write_text("")))
    assert len(set(names)) == 2
    assert {name.parent for name in names} == {tmp_path}  # a rename is atomic only within one file system
