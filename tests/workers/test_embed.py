"""`pipeline.embedding.embed` on a real local Ray: rows, resuming, and workers that die."""

import multiprocessing
import os
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from PIL import Image

from pipeline.durable.lock import store_lock
from pipeline.embedding import embed
from pipeline.errors import ConfigError, FingerprintMismatch, InputError, StoreError, StoreLocked
from pipeline.machine import num_cores
from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.spec import ModelSource
from pipeline.pixels.decode import decode_batch
from pipeline.settings.embed import EmbedSettings
from pipeline.source.formats.folder import list_images
from pipeline.store.layout import Store
from pipeline.store.parts import read_part
from pipeline.workers import decode_task, dispatch
from pipeline.workers.decode_task import DecodeTasks
from pipeline.workers.shard import embed_shard

pytestmark = pytest.mark.usefixtures("ray_session")

NUM_WORKERS = min(2, num_cores())
MAX_PIXELS = 5000


@pytest.fixture(scope="module")
def collection(tmp_path_factory, photos, make_image):
    """Good photos mixed with every kind of bad file."""
    folder = shutil.copytree(photos, tmp_path_factory.mktemp("collection") / "photos")
    (folder / "a text.jpg").write_text("not an image")
    (folder / "half.png").write_bytes((folder / "photo-01.png").read_bytes()[:500])
    (folder / "dangling.jpg").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jpg")
    make_image(100, 100).save(folder / "large.png")
    make_image(30, 30).save(folder / "photo-01.jpg")  # the same stem twice
    make_image(33, 33).save(folder / "snö\n雪.png")
    (folder / "notes.txt").write_text("ignored")
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory, collection, tiny_model):
    root = tmp_path_factory.mktemp("embed")
    (root / "captions.tsv").write_text("photo-01.jpg\ta square\nphoto-01.jpg\tanother\n")
    return EmbedSettings(
        source=collection,
        out=root / "store",
        captions=root / "captions.tsv",
        model=tiny_model,
        precision="fp32",
        shard_size=5,
        batch_size=2,
        workers=NUM_WORKERS,
        max_pixels=MAX_PIXELS,
    )


def with_other(settings, **changes):
    return settings.model_copy(update=changes)


@pytest.fixture(scope="module")
def run(settings):
    """The report of one uninterrupted run, and its ticks."""
    ticks = []
    return embed(settings, ticks.append), ticks


@pytest.fixture
def copy_of_store(run, settings, tmp_path):
    """Settings of the same run for a copy of its store, with one worker to start faster."""
    shutil.copytree(settings.out, tmp_path / "store")
    return with_other(settings, out=tmp_path / "store", workers=1)


def rows_of(store, record):
    tables = [read_part(store.part_path(shard.ordinal)) for shard in record.shards]
    return pa.concat_tables(tables).to_pylist()


def contents(folder):
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def embed_without_ray(settings, record, folder):
    """The parts that plain Python makes from the same plan, as bytes by ordinal. In a process as new as a worker's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_embed_plainly, settings, record, folder).result()


def _embed_plainly(settings, record, folder):
    encoder = Encoder(load_model(settings.model_source(), "fp32", "cpu"), settings.pruning_policy())
    store = Store(folder)
    store.create_folders()
    store.begin(record)
    for path in Store(settings.out).plan_dir.iterdir():
        shutil.copy(path, store.plan_dir)

    def decode(batches):
        return (decode_batch(batch, encoder.spec.preprocess, settings.max_pixels) for batch in batches)

    num_threads = torch.get_num_threads()
    torch.set_num_threads(max(1, num_cores() // settings.workers))  # the order of sums depends on it
    for shard in record.shards:
        embed_shard(shard, record, store, encoder, decode)
    torch.set_num_threads(num_threads)
    return {shard.ordinal: store.part_path(shard.ordinal).read_bytes() for shard in record.shards}


# --- an uninterrupted run


def test_a_row_for_every_image_in_the_order_of_keys(run, settings):
    report, _ = run
    rows = rows_of(report.store, report.record)
    entries, left_out = list_images(Path(settings.source))
    assert [row["key"] for row in rows] == [entry.key for entry in entries]
    assert [row["uri"] for row in rows] == [entry.uri for entry in entries]
    assert (report.num_images, report.num_ignored_files, left_out.counts) == (len(entries), 1, {"other_suffix": 1})
    assert len(report.record.shards) == 4


def test_every_failure_is_a_row_with_its_reason(run):
    report, _ = run
    failed = {row["key"]: row for row in rows_of(report.store, report.record) if row["status"] != "ok"}
    assert {key: row["status"] for key, row in failed.items()} == {
        "a text.jpg": "undecodable",
        "half.png": "undecodable",
        "dangling.jpg": "unreadable",
        "pipe.jpg": "unreadable",
        "large.png": "too_large",
    }
    assert failed["pipe.jpg"]["error"] == "is a named pipe"
    assert failed["large.png"]["error"] == "100 x 100 pixels, the limit is 5000"
    assert all(row["error"] and row["embedding"] is None for row in failed.values())
    assert report.failed == {"undecodable": 2, "unreadable": 2, "too_large": 1}
    assert report.num_ok == report.num_images - 5


def test_ids_are_base_of_the_shard_plus_row(run):
    report, _ = run
    for shard in report.record.shards:
        ids = read_part(report.store.part_path(shard.ordinal), ["id"])["id"].to_pylist()
        assert ids == [5 * shard.ordinal + row for row in range(shard.num_images)]


def test_embeddings_are_unit_vectors_of_their_own_image(run, settings):
    report, _ = run
    rows = {row["key"]: row for row in rows_of(report.store, report.record)}
    good = {key: np.array(row["embedding"]) for key, row in rows.items() if row["status"] == "ok"}
    np.testing.assert_allclose([np.linalg.norm(vector) for vector in good.values()], 1, atol=1e-5)
    assert {row["tokens_kept"] for row in rows.values() if row["status"] == "ok"} == {int(0.5 * 16)}
    encoder = Encoder(load_model(settings.model_source(), "fp32", "cpu"), settings.pruning_policy())
    for entry in list_images(Path(settings.source))[0]:
        if entry.key in good:
            pixels = decode_batch([entry], encoder.spec.preprocess).pixels
            np.testing.assert_allclose(encoder.encode(pixels)[0], good[entry.key], atol=1e-5)


def test_rows_have_captions_and_sizes(run):
    rows = {row["key"]: row for row in rows_of(run[0].store, run[0].record)}
    assert {key for key, row in rows.items() if row["caption"]} == {"photo-01.jpg"}
    assert rows["photo-01.jpg"]["caption"] == "a square"
    assert (rows["photo-01.jpg"]["width"], rows["photo-01.png"]["width"]) == (30, 43)


def test_ray_changes_no_byte(run, settings, tmp_path):
    report, _ = run
    expected = embed_without_ray(settings, report.record, tmp_path / "plain")
    for ordinal, data in expected.items():
        assert report.store.part_path(ordinal).read_bytes() == data, f"part {ordinal}"


def test_run_record_contains_encoder_and_plan(run, settings):
    record = run[0].store.read_record()
    assert record == run[0].record
    assert record.encoder.precision == "fp32"
    assert record.encoder.policy == settings.pruning_policy()
    assert [plan.source.location for plan in record.plans] == [str(settings.source)]
    software = ["numpy", "open_clip", "pillow", "pyarrow", "ray", "torch"]
    assert sorted(record.environment) == sorted([*software, "device", "kernels"])


def test_worker_reports_do_not_make_the_driver_import_torch(run):
    # torch's version is a str subclass of torch: unpickling it imports torch, which takes seconds
    assert {type(value) for value in run[0].record.environment.values()} == {str}


def test_only_the_files_of_the_store_are_left(run):
    root = run[0].store.root
    assert sorted(path.name for path in root.iterdir()) == [
        "embeddings", "events.jsonl", "plan", "run.json", "stats.json", "tombstones.parquet"
    ]  # fmt: skip
    assert not list(root.rglob("*.tmp"))


def test_progress_counts_images_and_never_too_many(run):
    report, ticks = run
    assert ticks[-1].num_done == ticks[-1].num_total == report.num_images
    assert ticks[-1].num_failed == 5
    assert all(tick.num_done <= tick.num_total for tick in ticks)


# --- resuming an unfinished store


def test_resume_embeds_only_what_is_missing(copy_of_store):
    store = Store(copy_of_store.out)
    before = contents(store.root)
    store.marker_path(1).unlink()
    store.part_path(2).write_bytes(b"torn")
    report = embed(with_other(copy_of_store, shard_size=None, batch_size=None, precision="auto"))
    assert report.num_embedded == 10
    assert report.num_images == sum(shard.num_images for shard in report.record.shards)
    after = contents(store.root)
    redone = {f"embeddings/part-0000{n}.{end}" for n in (1, 2) for end in ("parquet", "stats.json")}
    assert {name for name in before if before[name][1] != after[name][1]} == redone | {"events.jsonl", "stats.json"}
    assert before.keys() == after.keys()
    assert all(before[name][0] == after[name][0] for name in before if name.endswith(".parquet"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"keep_ratio": 0.5}, FingerprintMismatch, r"balanced, .*reference\(0.5\)"),
        ({"shard_size": 7}, ConfigError, r"created with --shard-size 5 --batch-size 2 .*asks for 7, 2 and 5000"),
        ({"batch_size": 3}, ConfigError, r"asks for 5, 3 and 5000; pass the original values"),
    ],
)
def test_a_store_refuses_another_encoder_or_plan(copy_of_store, changes, error, message):
    before = contents(copy_of_store.out)
    with pytest.raises(error, match=message):
        embed(with_other(copy_of_store, **changes))
    assert contents(copy_of_store.out) == before


def test_a_job_that_has_not_started_embedding_is_left_alone(settings, tmp_path):
    # the other job holds the lock but is still loading its model: its empty folders must not be cleaned up
    store = Store(tmp_path / "store")
    store.create_folders()
    with store_lock(store.root):
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
            embed(with_other(settings, out=store.root))
        assert store.embeddings_dir.is_dir()


# --- a run that cannot start leaves nothing behind


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"source": "/no/such/folder"}, InputError, "does not exist"),
        ({"source": "EMPTY"}, InputError, "contains no images"),
        ({"captions": Path("/no/such/file")}, InputError, "cannot read captions"),
        ({"out": Path("/dev/null/store")}, StoreError, "cannot write the store"),
        ({"workers": 10_000}, ConfigError, "workers = 10000: there are .* CPU cores"),
        ({"model": "ViT-B-23", "workers": 1}, InputError, "unknown model 'ViT-B-23'; did you mean"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_run_that_cannot_start(settings, tmp_path, changes, error, message):
    (tmp_path / "empty").mkdir()
    if changes.get("source") == "EMPTY":
        changes = {"source": str(tmp_path / "empty")}
    out = tmp_path / "out"
    with pytest.raises(error, match=message) as caught:
        embed(with_other(settings, **({"out": out} | changes)))
    assert "\n" not in str(caught.value)
    assert not out.exists()


# --- processes that die


def encode_worker_pids():
    """Encode worker processes of this process's own Ray."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_text()
            raylet = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            driver = Path(f"/proc/{raylet}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue  # it has exited
        if title.startswith("ray::EncodeWorker") and int(driver) == os.getpid():
            found.append(int(folder.name))
    return found


def test_a_worker_killed_in_mid_run_loses_nothing(settings, tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    Image.effect_noise((1500, 1500), 60).save(source / "00.jpg")  # large, so that the run lasts
    for number in range(1, 24):
        shutil.copy(source / "00.jpg", source / f"{number:02d}.jpg")
    killed = []

    def kill_once(tick):
        if not killed and 0 < tick.num_done < tick.num_total:
            [pid] = encode_worker_pids()
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    changes = {"source": str(source), "captions": None, "shard_size": 12, "workers": 1, "max_pixels": 10**7}
    settings = with_other(settings, out=tmp_path / "store", **changes)
    report = embed(settings, kill_once)
    assert killed
    assert (report.num_images, report.num_ok) == (24, 24)
    expected = embed_without_ray(settings, report.record, tmp_path / "plain")
    assert {n: report.store.part_path(n).read_bytes() for n in expected} == expected
    assert not list(report.store.root.rglob("*.tmp"))


@pytest.mark.kill
@pytest.mark.skipif(num_cores() < 2, reason="needs two workers")
def test_an_unresponsive_worker_is_replaced(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "UNRESPONSIVE_S", 5.0)
    stopped = []

    def stop_one(tick):
        events = tmp_path / "store" / "events.jsonl"
        done = events.read_text().count("shard_committed")
        if not stopped and done >= 4 and tick.num_done < tick.num_total:
            pid = encode_worker_pids()[0]
            os.kill(pid, signal.SIGSTOP)  # alive, but stuck
            stopped.append(pid)

    source = tmp_path / "photos"
    source.mkdir()
    for number in range(60):
        Image.effect_noise((1500, 1500), 60).save(source / f"{number:02d}.jpg")
    changes = {"source": str(source), "captions": None, "shard_size": 5, "workers": 2, "max_pixels": 10**7}
    report = embed(with_other(settings, out=tmp_path / "store", **changes), stop_one)
    assert stopped
    assert (report.num_images, report.num_ok) == (60, 60)
    events = (tmp_path / "store" / "events.jsonl").read_text()
    # the speed of the machine and the remaining work determine whether it is first noticed as slow or as silent
    assert "straggler_run_again" in events or "worker_lost" in events
    with suppress(ProcessLookupError):  # a stopped process may not have been killed yet
        os.kill(stopped[0], signal.SIGKILL)


@pytest.mark.parametrize("images_per_task", [2, 32])
def test_an_image_that_crashes_its_decoder_is_one_crashed_row(collection, tiny_model, monkeypatch, images_per_task):
    # There is no known file that crashes Pillow, so this decode task kills its own process at one of the images.
    # The process really dies, and the worker's own code recovers.
    @ray.remote(max_retries=0)
    def decode_or_die(entries, preprocess, max_pixels, *_):
        if any(entry.key == "large.png" for entry in entries):
            os.kill(os.getpid(), signal.SIGKILL)
        return decode_batch(entries, preprocess, max_pixels)

    monkeypatch.setattr(decode_task, "IMAGES_PER_TASK", images_per_task)
    entries = [entry for entry in list_images(collection)[0] if entry.key in ("half.png", "large.png", "photo-01.png")]
    wanted = load_model(ModelSource(model=tiny_model), "fp32", "cpu").spec.preprocess
    tasks = DecodeTasks(preprocess=wanted, max_pixels=MAX_PIXELS, timeout_s=None, num_cpus=0.25, task=decode_or_die)
    [batch] = tasks.ahead([entries])
    assert [(result.key, result.status) for result in batch.results] == [
        ("half.png", "undecodable"),
        ("large.png", "crashed"),
        ("photo-01.png", "ok"),
    ]
    assert [bool(image.any()) for image in batch.pixels] == [False, False, True]


def test_tower_that_cannot_be_pruned_runs_unpruned_by_default(settings, resnet_model, tmp_path):
    report = embed(with_other(settings, model=resnet_model, out=tmp_path / "store"))
    assert report.warnings == [
        "this image tower cannot be pruned: ModifiedResNet is not a Vision Transformer; it runs unpruned"
    ]
    assert report.record.encoder.policy is None
    assert report.num_ok > 0
    again = embed(with_other(settings, model=resnet_model, out=tmp_path / "store"))
    assert again.num_embedded == 0


@pytest.mark.parametrize("explicit", [{"policy": "balanced"}, {"keep_ratio": 0.7}, {"gmac_ratio": 2.0}])
def test_tower_that_cannot_be_pruned_refuses_an_explicit_policy(settings, resnet_model, tmp_path, explicit):
    with pytest.raises(InputError, match="ModifiedResNet is not a Vision Transformer; use the policy `none`"):
        embed(with_other(settings, model=resnet_model, out=tmp_path / "store", **explicit))
    assert not (tmp_path / "store").exists()
