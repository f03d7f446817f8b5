"""`embed` in int8 with real workers: the first one calibrates, the store keeps it, and all bytes follow from that."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.embedding import embed
from pipeline.errors import FingerprintMismatch, InputError
from pipeline.machine import num_cores
from pipeline.settings.embed import EmbedSettings
from pipeline.settings.store import VerifySettings
from pipeline.store.layout import Store
from pipeline.verify import verify
from pipeline.workers.pool import WorkerPool
from query.cli.main import main
from tests.kit.reports import jpeg, write_tar

INT8 = {"precision": "int8", "shard_size": 5}


def bytes_of(report):
    """What decides the embeddings, and the parts."""
    root = report.store.root
    parts = sorted((root / "embeddings").glob("*.parquet"))
    return {path.name: path.read_bytes() for path in (report.store.calibration_path, *parts)}


def doubts(report):
    """Its warnings of the images that were calibrated on. There is another one: 8 bits gain little on a tiny tower."""
    return [text for text in report.warnings if "calibrated" in text]


@pytest.fixture(scope="module")
def of_two_workers(tmp_path_factory, photos, tiny_model, ray_session):
    """The report of a run of as many workers as there are cores, at most two. Before `pool`, which takes a core."""
    out = tmp_path_factory.mktemp("two") / "store"
    workers = min(2, num_cores())
    return embed(EmbedSettings(source=photos, out=out, model=tiny_model, batch_size=4, workers=workers, **INT8))


@pytest.fixture(scope="module")
def pool(of_two_workers):
    """One worker for all tests here."""
    pool = WorkerPool(1)
    yield pool
    pool.stop()


@pytest.fixture(scope="module")
def first(tmp_path_factory, photos, tiny_model, pool):
    """The report of an uninterrupted run, and its source. Read-only."""
    out = tmp_path_factory.mktemp("int8") / "store"
    settings = EmbedSettings(source=photos, out=out, model=tiny_model, batch_size=4, **INT8)
    return embed(settings, pool=pool), photos


@pytest.fixture
def grown(first, tmp_path):
    """A copy of the store and of its source, to change."""
    report, source = first
    shutil.copytree(report.store.root, tmp_path / "store")
    return tmp_path / "store", source


def test_the_run_says_what_it_calibrated_on(first):
    report, _ = first
    assert report.calibration.startswith("12 images, ")
    [warning] = doubts(report)
    assert "12 different images (of 12; blank ones do not count), fewer than 32" in warning
    assert report.record.encoder.precision == "int8"
    assert report.record.encoder.calibration
    assert "calibration" not in json.loads(report.store.summary_path.read_text())["last_run"]


def test_workers_in_any_number_write_the_same_bytes(first, of_two_workers):
    assert bytes_of(of_two_workers) == bytes_of(first[0])


def test_a_run_from_scratch_writes_the_same_bytes_whatever_a_killed_one_left(first, run, tmp_path):
    report, source = first
    out = tmp_path / "store"
    out.mkdir()
    (out / "calibration.safetensors").write_bytes(b"of a run that was killed before it wrote run.json")
    assert bytes_of(run(source, **INT8)) == bytes_of(report)
    # the batches of the run do not change what is measured
    other = run(source, out=tmp_path / "other", **(INT8 | {"batch_size": 3}))
    assert other.record.encoder.calibration == report.record.encoder.calibration


def test_a_store_in_float_takes_no_calibration_that_a_killed_run_left(first, run, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "calibration.safetensors").write_bytes(b"left")
    report = run(first[1])
    assert not report.store.calibration_path.exists()
    assert report.record.encoder.calibration is None
    assert report.record.encoder.text_space == first[0].record.encoder.text_space


def test_what_is_missing_is_embedded_with_the_calibration_of_the_store(first, run, grown):
    store = Store(grown[0])
    store.marker_path(1).unlink()
    store.part_path(2).write_bytes(b"torn")
    report = run(grown[1], **INT8)
    assert (report.num_embedded, report.calibration, doubts(report)) == (7, None, [])
    assert bytes_of(report) == bytes_of(first[0])


@pytest.mark.parametrize("precision", ["auto", "8bit", "int8"])
def test_a_store_that_grows_keeps_its_calibration(first, run, grown, tmp_path, make_image, precision):
    more = tmp_path / "more"
    more.mkdir()
    for number in range(20):
        make_image(40, 44, 100 + number).save(more / f"new-{number}.png")
    report = run(more, **(INT8 | {"precision": precision}))
    assert (report.num_embedded, report.calibration) == (20, None)
    assert bytes_of(first[0]).items() <= bytes_of(report).items()
    found = verify(VerifySettings(store=grown[0], resample=100, device="cpu"))
    assert (found.findings, found.resample.num_equal) == ([], 32)


def test_one_calibration_for_two_stores(first, run, tmp_path, make_image):
    report, source = first
    given = report.store.calibration_path
    other = run(source, out=tmp_path / "same", calibration=given, **INT8)
    assert bytes_of(other) == bytes_of(report)
    assert other.calibration is None
    more = tmp_path / "more"
    more.mkdir()
    make_image(40, 44, 100).save(more / "new.png")
    another = run(more, out=tmp_path / "another", calibration=given, **INT8)
    assert another.record.fingerprint == report.record.fingerprint
    assert doubts(another) == []
    assert main(["verify", str(tmp_path / "another"), "--resample", "1", "--device", "cpu"]) == 0
    unpruned = run(source, out=tmp_path / "unpruned", calibration=given, policy="none", **INT8)
    assert any("so min_cosine was not checked for policy none" in text for text in unpruned.warnings)


def test_a_calibration_of_another_model_is_refused_and_nothing_is_left(first, run, tmp_path):
    with pytest.raises(InputError, match=r"calibration .*input height 32 .*has 48 .*; give the calibr"):
        run(first[1], image_size=48, calibration=first[0].store.calibration_path, **INT8)
    assert not (tmp_path / "store").exists()
    assert first[0].store.calibration_path.exists()


def test_another_model_on_a_store_in_int8_is_refused(run, grown):
    with pytest.raises(FingerprintMismatch, match=r"input height 32 .*; choose another --out, or the same model"):
        run(grown[1], image_size=48, policy="none", **INT8)


@pytest.mark.parametrize("source_format", ["tars", "parquet"])
def test_files_of_images(run, tmp_path, make_image, source_format):
    images = [jpeg(make_image, number) for number in range(9)]
    if source_format == "tars":
        write_tar(tmp_path / "0.tar", {f"{number}.jpg": data for number, data in enumerate(images[:5])})
        write_tar(tmp_path / "1.tar", {f"{number}.jpg": data for number, data in enumerate(images[5:])})
        source = tmp_path / "*.tar"
    else:
        pq.write_table(pa.table({"image": [*images, b"no image"]}), tmp_path / "0.parquet", row_group_size=4)
        source = tmp_path / "0.parquet"
    report = run(source, **INT8)
    assert report.calibration.startswith("9 images, ")
    assert report.num_ok == 9
    assert bytes_of(run(source, out=tmp_path / "again", **INT8)) == bytes_of(report)


def test_a_source_without_a_good_image_is_an_error_that_leaves_nothing(run, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"none of 1 sampled images can be decoded \(first 'a.jpg' is undecodable"):
        run(tmp_path / "bad", **INT8)
    assert not (tmp_path / "store").exists()


def test_the_canary_compares_with_the_unpruned_tower_in_int8(first, run, tmp_path):
    report = run(first[1], policy="fast", canary=1.0, canary_floor=-1.0, **INT8)
    marker = json.loads(report.store.marker_path(0).read_text())
    assert marker["canary"]["num_images"] == 5
    assert -1 <= marker["canary"]["min"] <= marker["canary"]["max"] < 1
