"""Keys that a column gives are checked before anything starts: against each other and against the store."""

import os
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dry_run import estimate
from pipeline.embedding import embed
from pipeline.errors import InputError, StoreError
from pipeline.planning.extend import find_changes
from pipeline.settings.embed import EmbedSettings
from pipeline.source.formats import parquet
from pipeline.source.sorting import RUN_LENGTH
from pipeline.store.layout import Store
from pipeline.store.tombstones import DELETED, add_tombstones
from pipeline.store.view import StoreView
from tests.kit.jobs import Job
from tests.kit.sources import listed


@pytest.fixture
def job(tmp_path, spec):
    return Job(tmp_path / "store", spec)


@pytest.fixture
def write(tmp_path):
    """Writes a file of a folder of Parquet files, with an image per key, and returns their pattern."""

    def write_file(name, keys, word="image", **columns):
        (tmp_path / "sets").mkdir(exist_ok=True)
        images = [f"{word} {key}".encode() for key in keys]
        pq.write_table(pa.table({"image": images, "id": keys} | columns), tmp_path / "sets" / name, row_group_size=2)
        return tmp_path / "sets" / "*.parquet"

    return write_file


@pytest.fixture
def unchecked(monkeypatch):
    """In its `with` block, keys are not checked, as in earlier code."""

    @contextmanager
    def block():
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.planning.extend.refuse_keys", lambda *arguments: None)
            yield

    return block


def check(job, source, on_change="stop", key_column="id", **spec):
    view = StoreView.now(job.store, job.store.read_record()) if job.store.record_path.exists() else None
    find_changes(view, listed(source, key_column=key_column, **spec), on_change)


def test_unique_keys_are_accepted(job, write):
    write("a.parquet", ["a", "b", None, None, ""])
    source = write("b.parquet", [b"c", b"d"])
    check(job, source)
    assert not job.store.record_path.exists()
    job.run(source, key_column="id")
    check(job, source)
    write("c.parquet", [7, 8])
    check(job, source)


def test_a_key_that_is_twice_in_one_file(job, write):
    source = write("a.parquet", ["b", "a", "c", "a"])
    with pytest.raises(InputError, match=r"row 3 of .*/a.parquet has the key 'a', which row 1 of .*/a.parquet has too"):
        check(job, source)
    check(job, source, key_column=None)


def test_a_key_that_is_in_two_files(job, write):
    write("a.parquet", ["a", "7"])
    source = write("b.parquet", [6, 7])
    with pytest.raises(InputError, match=r"row 1 of .*/b.parquet has the key '7', which row 1 of .*/a.parquet has too"):
        check(job, source)


def test_a_key_that_equals_a_row_without_one(job, write):
    source = write("a.parquet", [None, "a.parquet/0"])
    with pytest.raises(InputError, match=r"row 1 of .* has the key 'a.parquet/0', which row 0 of .*; keys must be"):
        check(job, source)


def test_bytes_that_become_the_same_text(job, write):
    with pytest.raises(InputError, match="has the key '\ufffd', which row 0"):
        check(job, write("a.parquet", [b"\xe9", b"\xe8"]))


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_key_that_is_in_the_store(job, write, is_committed):
    source = write("a.parquet", ["a", "b", "c"])
    job.plan(source, key_column="id")
    if is_committed:
        job.commit()
    write("b.parquet", ["d", "b"])
    with pytest.raises(InputError, match=r"row 1 of .*/b.parquet has the key 'b', which row 1 of the store has too"):
        check(job, source)
    check(job, source.parent / "b.parquet", key_prefix="new/")


@pytest.mark.parametrize("on_change", ["stop", "keep", "embed"])
def test_rows_that_are_deleted_or_replaced_do_not_count(job, write, on_change):
    source = write("a.parquet", ["a", "b", "c"])
    job.run(source, key_column="id")
    add_tombstones(job.store, [1], DELETED)
    write("b.parquet", ["b"])
    check(job, source, on_change)
    path = source.parent / "a.parquet"
    write("a.parquet", ["a", "x", "c"], word="changed")
    os.utime(path, ns=(1, 1))
    write("b.parquet", ["d"])
    if on_change == "stop":
        with pytest.raises(StoreError, match=r"1 images or files of the store .* changed"):
            check(job, source, on_change)
        return
    check(job, source, on_change)
    write("b.parquet", ["x"])
    if on_change == "keep":  # the changed file is not read
        check(job, source, on_change)
        return
    with pytest.raises(InputError, match=r"row 0 of .*/b.parquet has the key 'x', which row 1 of .*/a.parquet has too"):
        check(job, source, on_change)


def test_a_replaced_file_that_was_not_embedded(job, write):
    source = write("a.parquet", ["a", "b"])
    job.plan(source, key_column="id")
    write("a.parquet", ["a", "b"], word="changed")
    check(job, source, "embed")
    (source.parent / "a.parquet").unlink()
    check(job, write("b.parquet", ["a"]), "embed")


def test_a_list_added_to_a_store_with_keys(job, write, tmp_path):
    job.run(write("a.parquet", ["1", "2"]), key_column="id")
    (tmp_path / "list.csv").write_text("path,n\nx.jpg,3\ny.jpg,2\n")
    with pytest.raises(InputError, match=r"y.jpg has the key '2', which row 1 of the store has too"):
        check(job, tmp_path / "list.csv", key_column="n")
    check(job, tmp_path / "list.csv", key_column=None)
    job.run(tmp_path / "list.csv", key_column="n", key_prefix="list/")
    check(job, tmp_path / "list.csv", key_column="n", key_prefix="list/")


def test_files_added_to_a_store_with_a_list(job, write, tmp_path):
    (tmp_path / "list.csv").write_text("path\na\nb\n")
    job.run(tmp_path / "list.csv")
    with pytest.raises(InputError, match=r"row 0 of .*a.parquet has the key 'b', which row 1 of the store"):
        check(job, write("a.parquet", ["b"]))


def test_a_store_that_has_a_key_twice_still_resumes(job, write, unchecked):
    source = write("a.parquet", ["a", "a"])
    with unchecked():
        job.plan(source, key_column="id")
    job.commit()
    check(job, source)
    write("b.parquet", ["b"])
    check(job, source)
    write("b.parquet", ["a"])
    with pytest.raises(InputError, match=r"b.parquet has the key 'a', which row 1 of the store"):
        check(job, source)


def test_more_keys_than_are_sorted_in_memory(job, tmp_path):
    keys = [str(number * 7919 % (RUN_LENGTH + 9)) for number in range(RUN_LENGTH + 9)]
    for extra, name in ((keys[500], "twice"), ("new", "once")):
        column = pa.array([*keys, extra])
        pq.write_table(
            pa.table({"image": pa.nulls(len(column), pa.binary()), "id": column}), tmp_path / f"{name}.parquet"
        )
    check(job, tmp_path / "once.parquet")
    with pytest.raises(InputError, match=rf"row {len(keys)} of .* has the key '{keys[500]}', which row 500 of"):
        check(job, tmp_path / "twice.parquet")


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"PAR1"), os.unlink])
def test_a_planned_file_that_was_lost_stops_no_other(job, write, damage):
    source = write("a.parquet", ["a", "b"])
    job.plan(source, key_column="id")
    damage(source.parent / "a.parquet")
    check(job, write("b.parquet", ["a"]).parent / "b.parquet", "keep")


def test_a_new_file_whose_keys_are_damaged(job, tmp_path):
    keys = pa.array([f"{number:0100d}" for number in range(1000)])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": keys, "image": [b"a"] * 1000}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read the keys of .*/a.parquet: .* replace it with an intact copy"):
        check(job, path)


def test_columns_of_no_use_are_refused_for_new_files_only(job, write, unchecked):
    source = write("a.parquet", [1.5, 2.5])
    with pytest.raises(InputError, match=r"a.parquet: column 'id' is double, but keys must be text or integers"):
        check(job, source)
    with unchecked():
        job.run(source, key_column="id")
    check(job, source)
    write("b.parquet", [3.5])
    with pytest.raises(InputError, match=r"b.parquet: column 'id' is double"):
        check(job, source)


def test_captions_of_no_use(job, write):
    source = write("a.parquet", ["a"], caption=[7])
    with pytest.raises(InputError, match=r"a.parquet: column 'caption' is int64, but captions must be text"):
        check(job, source, key_column=None)


def test_nothing_is_read_if_nothing_is_new(job, write, monkeypatch):
    source = write("a.parquet", ["a", "b"])
    job.run(source, key_column="id")
    monkeypatch.setattr(parquet, "read_keys", None)
    check(job, source)


@pytest.mark.parametrize("run", [embed, estimate])
@pytest.mark.parametrize("kind", ["parquet", "list", "captions"])
def test_a_run_finds_them_before_it_starts(write, photos, tmp_path, monkeypatch, run, kind):
    monkeypatch.setattr("pipeline.workers.pool.worker_pool", None)
    (tmp_path / "list.csv").write_text("path\na.jpg\na.jpg\n")
    (tmp_path / "captions.tsv").write_text("no such image.jpg\ta caption\n")
    source, message = {
        "parquet": ({"source": str(write("a.parquet", ["a", "a"])), "key_column": "id"}, "row 1 of .* has the key 'a'"),
        "list": ({"source": str(tmp_path / "list.csv")}, "has the key 'a.jpg' twice"),
        "captions": ({"source": str(photos), "captions": tmp_path / "captions.tsv"}, "1 captioned images are not in"),
    }[kind]
    with pytest.raises(InputError, match=message):
        run(EmbedSettings(out=tmp_path / "store", model="no such model", **source))
    assert not Store(tmp_path / "store").root.exists()
