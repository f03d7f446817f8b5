"""A store as a data set: images by the URIs of its rows, whatever its source was."""

import shutil

import pytest

from pipeline.errors import InputError, StoreError, UnfinishedStore
from pipeline.pixels.decode import decode_batch
from pipeline.source.entry import Status
from pipeline.store.tombstones import add_tombstones
from tests.kit.data_sets import answers_of, keys_of, opened, write_karpathy, write_tsv
from tests.kit.embeddings import run_import, unit_vectors, write_parquet
from tests.kit.jobs import Job
from tests.kit.sources import PREPROCESS, tar_of

CAPTIONS = {"photo-02.jpg": ["two", "zwei"], "more/photo-00.jpg": ["zero"]}


@pytest.fixture
def copied(photos, tmp_path):
    return shutil.copytree(photos, tmp_path / "photos")


@pytest.fixture
def tsv(tmp_path):
    return write_tsv(tmp_path / "captions.tsv", CAPTIONS)


@pytest.fixture
def job(copied, tsv, tmp_path, spec):
    job = Job(tmp_path / "store", spec)
    job.run(copied, captions=tsv)
    return job


def test_the_captions_of_its_rows_are_queries(job, tmp_path):
    data = opened(tmp_path, store=job.store.root)
    assert len(data.entries) == 12
    assert keys_of(data) == sorted(keys_of(data))
    assert answers_of(data) == {"zero": {"more/photo-00.jpg": 1.0}, "two": {"photo-02.jpg": 1.0}}
    assert data.counts["num_without_query"] == 10


def test_its_images_are_read_again_from_where_they_are(job, tmp_path):
    assert decode_batch(opened(tmp_path, store=job.store.root).entries, PREPROCESS).is_ok_B.all()


@pytest.mark.parametrize("write", [write_tsv, write_karpathy])
def test_with_a_captions_file_it_is_the_split_of_its_images(job, copied, tmp_path, write):
    path = write(tmp_path / ("captions.tsv" if write is write_tsv else "dataset.json"), CAPTIONS)
    data = opened(tmp_path, store=job.store.root, captions=path)
    assert data.sha256 == opened(tmp_path, images=copied, captions=path).sha256
    assert len(data.titles) == 3


def test_images_of_tars_are_read_again(tmp_path, photos, spec):
    images = [path.read_bytes() for path in sorted(photos.glob("*.jpg"))[:2]]
    path = tmp_path / "0.tar"
    path.write_bytes(tar_of({"a.jpg": images[0], "a.txt": b"an a", "b.jpg": images[1]}))
    job = Job(tmp_path / "store", spec)
    job.run(path)
    data = opened(tmp_path, store=job.store.root)
    assert answers_of(data) == {"an a": {"0.tar/a.jpg": 1.0}}
    assert decode_batch(data.entries, PREPROCESS).is_ok_B.all()


def test_failed_images_are_counted_and_deleted_ones_are_gone(copied, tsv, tmp_path, spec):
    job = Job(tmp_path / "store", spec)
    job.plan(copied, captions=tsv)
    job.commit(failing=[("photo-01.png", Status.UNDECODABLE)])
    deleted = next(number for number, key in rows_of(job) if key == "photo-04.jpg")
    add_tombstones(job.store, [deleted], "deleted")
    data = opened(tmp_path, store=job.store.root)
    assert data.counts["num_without_embedding"] == 1
    assert len(data.entries) == 10
    assert not {"photo-01.png", "photo-04.jpg"} & set(keys_of(data))


def rows_of(job):
    from pipeline.store.view import StoreView

    for _, table in StoreView.open(job.store.root).parts(["id", "key"]):
        yield from zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True)


def test_an_import_must_say_where_its_images_are(photos, tmp_path):
    paths = sorted(photos.glob("*.jpg"))[:2]
    columns = {"key": [path.name for path in paths], "caption": ["a", "b"]}
    bare = write_parquet(tmp_path / "bare.parquet", unit_vectors(2), **columns)
    run_import(bare, tmp_path / "bare")
    with pytest.raises(InputError, match=r"does not say where 2 of its images are, first 'photo-02.jpg'; import it"):
        opened(tmp_path, store=tmp_path / "bare")
    placed = write_parquet(tmp_path / "placed.parquet", unit_vectors(2), **columns, uri=[str(path) for path in paths])
    run_import(placed, tmp_path / "placed")
    data = opened(tmp_path, store=tmp_path / "placed")
    assert data.titles == ["a", "b"]
    assert decode_batch(data.entries, PREPROCESS).is_ok_B.all()


def test_an_image_that_is_no_longer_there_is_an_error(job, copied, tmp_path):
    (copied / "photo-02.jpg").unlink()
    (copied / "photo-04.jpg").unlink()
    with pytest.raises(InputError, match=r"data set 'mine': 2 of the 12 images of store .*'photo-02.jpg' at file://"):
        opened(tmp_path, store=job.store.root)


def test_a_store_without_captions_is_an_error(copied, tmp_path, spec):
    job = Job(tmp_path / "store", spec)
    job.run(copied)
    with pytest.raises(InputError, match=r"no image of \S+store has a caption; give a file with `captions`"):
        opened(tmp_path, store=job.store.root)


def test_a_captions_file_of_other_images_is_an_error(job, tmp_path):
    path = write_tsv(tmp_path / "other.tsv", {"gone.jpg": ["a"]})
    with pytest.raises(InputError, match=r"captions file \S+other.tsv, line 1: 1 captioned images .*'gone.jpg'"):
        opened(tmp_path, store=job.store.root, captions=path)


def test_an_unfinished_store_is_an_error(copied, tmp_path, spec):
    job = Job(tmp_path / "store", spec)
    job.plan(copied)
    job.commit(limit=1)
    with pytest.raises(UnfinishedStore, match=r"data set 'mine': the store .* is unfinished"):
        opened(tmp_path, store=job.store.root)


def test_a_folder_that_is_no_store_is_an_error(copied, tmp_path):
    with pytest.raises(StoreError, match=r"data set 'mine': no store at"):
        opened(tmp_path, store=copied)
