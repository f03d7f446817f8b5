"""Which images int8 is calibrated on: a seeded choice that does not read the whole source."""

import random
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceUnavailable
from pipeline.source import sample as samples
from pipeline.source.sample import choose_sample
from tests.kit.reports import write_tar
from tests.kit.sources import listed


@pytest.fixture
def few(monkeypatch):
    """A sample of 20 images, so that sources can be small."""
    monkeypatch.setattr(samples, "CALIBRATION_IMAGES", 20)


def keys_of(location, **spec):
    return [image.key for image in choose_sample(listed(location, **spec)).images()]


def list_of(path, names):
    path.write_text("path\n" + "".join(f"{name}.jpg\n" for name in names))
    return path


def counting(monkeypatch, name):
    """Counts what is read of each file."""
    read = []

    def counted(file, source, start, stop):
        read.append((file.key, start, stop))
        return original(file, source, start, stop)

    original = getattr(samples, name)
    monkeypatch.setattr(samples, name, counted)
    return read


def test_images_are_chosen_by_their_keys_alone(tmp_path, few):
    names = [f"image-{number:03d}" for number in range(100)]
    chosen = keys_of(list_of(tmp_path / "a.csv", names))
    assert len(set(chosen)) == 20
    assert keys_of(list_of(tmp_path / "a.csv", random.Random(3).sample(names, 100))) == chosen
    # not the first ones, nor every fifth
    positions = sorted(names.index(key.removesuffix(".jpg")) for key in chosen)
    assert positions[-1] > 60
    assert len({after - before for before, after in pairwise(positions)}) > 3
    # a source that has grown keeps most of its choice
    grown = keys_of(list_of(tmp_path / "a.csv", [*names, "more-1", "more-2"]))
    assert len(set(chosen) & set(grown)) >= 18


def test_a_small_source_is_chosen_whole(tmp_path, few):
    assert sorted(keys_of(list_of(tmp_path / "a.csv", "cab"))) == ["a.jpg", "b.jpg", "c.jpg"]


def test_tars_are_read_from_their_start_and_not_to_their_end(tmp_path, few, monkeypatch):
    for tar in range(40):
        write_tar(tmp_path / f"{tar:02d}.tar", {f"{number:02d}.jpg": b"image" for number in range(50)})
    read = counting(monkeypatch, "read_file")
    chosen = keys_of(tmp_path / "*.tar")
    assert len(chosen) == 20
    assert {key.partition("/")[2] for key in chosen} == {"00.jpg", "01.jpg"}
    assert len(read) == 10
    assert [key for key, *_ in read] != sorted(key for key, *_ in read)
    assert keys_of(tmp_path / "*.tar") == chosen


def test_few_images_in_tars(tmp_path, few):
    for tar in range(5):
        write_tar(tmp_path / f"{tar}.tar", {f"{number}.jpg": b"image" for number in range(tar)})
    assert len(keys_of(tmp_path / "*.tar")) == 10
    write_tar(tmp_path / "one.tar", {f"{number:02d}.jpg": b"image" for number in range(30)})
    assert keys_of(tmp_path / "one.tar") == [f"one.tar/{number:02d}.jpg" for number in range(20)]


def test_a_damaged_tar_gives_the_images_before_the_damage(tmp_path, few):
    for tar in range(2):
        write_tar(tmp_path / f"{tar}.tar", {f"{number:02d}.jpg": bytes(600) for number in range(10)})
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[: len(whole) // 3])
    chosen = keys_of(tmp_path / "*.tar")
    assert 10 < len(chosen) < 20
    assert {key.partition("/")[0] for key in chosen} == {"0.tar", "1.tar"}


def write_rows(path, num_rows, group_size):
    pq.write_table(pa.table({"image": [b"image %d" % row for row in range(num_rows)]}), path, row_group_size=group_size)


def test_rows_come_from_row_groups_all_over_parquet_files(tmp_path, few, monkeypatch):
    for file in range(30):
        write_rows(tmp_path / f"{file:02d}.parquet", 40, 10)
    read = counting(monkeypatch, "read_file")
    chosen = keys_of(tmp_path / "*.parquet")
    assert len(chosen) == 20
    assert all(start % 10 == 0 and stop - start == 2 for _, start, stop in read)
    assert len({key for key, *_ in read}) > 5
    assert len({start for _, start, _ in read}) > 1
    assert keys_of(tmp_path / "*.parquet") == chosen


@pytest.mark.parametrize("group_size", [1, 3, 7, 1000])
def test_row_groups_of_any_size_give_enough_rows(tmp_path, few, group_size):
    write_rows(tmp_path / "a.parquet", 200, group_size)
    assert len(set(keys_of(tmp_path / "a.parquet"))) == 20


def test_a_damaged_parquet_file_is_passed_over(tmp_path, few):
    for name in "ab":
        write_rows(tmp_path / f"{name}.parquet", 30, 10)
    listing = listed(tmp_path / "*.parquet")
    (tmp_path / "a.parquet").write_bytes(b"damaged")
    chosen = [image.key for image in choose_sample(listing).images()]
    assert chosen
    assert {key.partition("/")[0] for key in chosen} == {"b.parquet"}


def test_a_server_that_does_not_answer_is_an_error(tmp_path, few, monkeypatch):
    def unavailable(*_):
        raise SourceUnavailable("away")

    write_tar(tmp_path / "a.tar", {"1.jpg": b"image"})
    monkeypatch.setattr(samples, "read_file", unavailable)
    with pytest.raises(SourceUnavailable):
        keys_of(tmp_path / "a.tar")
