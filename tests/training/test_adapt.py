"""`clipsieve adapt` as a user runs it: it learns, resumes after a kill, and stops on errors."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.adapt import _RECIPE_FIELDS, adapt
from pipeline.durable.lock import store_lock
from pipeline.errors import ClipsieveError, ConfigError, InputError, StoreError, StoreLocked
from pipeline.model.adapter.files import read_adapter, read_card
from pipeline.model.spec import Preprocess
from pipeline.settings.adapt import AdaptSettings
from pipeline.training.examples import Batch, Decoder, Examples, gather
from query.cli.main import main

NUM_IMAGES = 40

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def album(tmp_path_factory, make_image):
    """Photos with captions."""
    folder = tmp_path_factory.mktemp("album")
    lines = []
    for number in range(NUM_IMAGES):
        make_image(40, 36, number).save(folder / f"{number:02d}.png")
        lines += [f"{number:02d}.png\tphoto {number}", f"{number:02d}.png\tthe {number}th"]
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def settings(album, tiny_model, tmp_path):
    def make(**parts):
        captions = None if parts.get("label_free") else album / "captions.tsv"
        defaults = {
            "model": tiny_model,
            "data": album,
            "captions": captions,
            "out": tmp_path / "adapter",
            "policy": "fast",
            "rank": 4,
            "steps": 20,
            "batch_size": 8,
            "evaluate_every": 10,
            "costs": "1,1.5",
            "precision": "fp32",
        }
        return AdaptSettings(**{**defaults, **parts})

    return make


def record(folder):
    return json.loads((folder / "adapter.json").read_text())


def factors(folder):
    return (folder / "adapter.safetensors").read_bytes()


def test_label_free_brings_the_pruned_images_closer(settings, tmp_path):
    report = adapt(settings(label_free=True, steps=60, learning_rate=0.01))
    before, after = (report.results[when]["fast"]["cosine"] for when in ("before", "after"))
    assert 1 - after < 0.6 * (1 - before)
    assert report.results["before"]["1x"]["cosine"] == pytest.approx(1, abs=1e-4)
    adapter = read_adapter(str(tmp_path / "adapter"))
    assert not adapter.updates_text
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == ["adapter.json", "adapter.safetensors"]


def test_captions_teach_the_student_to_tell_images_apart(settings):
    parts = {"feature_weight": 0, "similarity_weight": 0, "contrastive_weight": 0, "task_weight": 1}
    report = adapt(settings(steps=80, learning_rate=0.01, evaluate_every=80, crop_area=1, **parts))
    log = record(report.adapter)["log"]
    assert log[-1]["task"] < 0.97 * np.log(8)  # chance
    assert set(report.results["after"]["fast"]) == {
        *("cosine", "overlap@10"),
        *(f"image_retrieval_recall@{k}" for k in (1, 5, 10)),
    }


def test_a_summary_learns_its_offset(settings):
    report = adapt(settings(policy="reference", label_free=True, learning_rate=0.01))
    offsets = read_adapter(str(report.adapter)).summary_offsets_LD
    assert offsets.shape == (4, 32)
    assert (offsets.abs().sum(dim=1) > 0).tolist() == [False, True, False, False]  # at the cut
    assert record(report.adapter)["summary_offsets"] == offsets.tolist()


@pytest.mark.parametrize("variant", ["shared", "shared+head", "independent", "image-only"])
@pytest.mark.parametrize("factors", ["free", "singular"])
def test_every_variant_trains(settings, variant, factors):
    report = adapt(settings(variant=variant, factors=factors, steps=4, evaluate_every=2, learning_rate=0.05))
    found = record(report.adapter)
    assert (found["fusion"]["variant"], found["fusion"]["factors"]) == (variant, factors)
    assert [entry["step"] for entry in found["log"]] == [2, 4]
    assert found["recipe"]["policy"]["name"] == "fast"
    assert len(found["base"]["weights_sha256"]) == len(found["recipe"]["data_sha256"]) == 64
    changed = report.results["after"]["1x"]["cosine"]
    assert changed < 1 or variant == "image-only"


def test_the_control_is_trained_unpruned(settings):
    report = adapt(settings(policy="none"))
    assert list(report.results["after"]) == ["1x"]
    assert record(report.adapter)["recipe"]["policy"] is None


def test_seeds_reproduce(settings, tmp_path):
    for name, seed in (("first", 0), ("same", 0), ("other", 1)):
        adapt(settings(out=tmp_path / name, seed=seed))
    assert factors(tmp_path / "first") == factors(tmp_path / "same") != factors(tmp_path / "other")
    assert record(tmp_path / "first")["sha256"] == record(tmp_path / "same")["sha256"]


def test_a_killed_training_resumes_exactly(settings, tmp_path):
    whole = settings(out=tmp_path / "whole", steps=120, evaluate_every=20, patience=100)
    killed = tmp_path / "killed"
    flags = [f"--{name.replace('_', '-')}={getattr(whole, name)}" for name in _given(whole)]
    program = "import sys; from query.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "adapt", *flags, "--out", str(killed)]
    subprocess.run([*command[:-1], str(tmp_path / "whole")], check=True, capture_output=True)
    steps_seen = []
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        wait_for_state(killed, process, newer_than=time.time())
        time.sleep(np.random.default_rng(len(steps_seen)).uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        steps_seen.append(torch.load(killed / "training" / "state.pt", weights_only=True)["state"]["step"])
        assert not (killed / "adapter.json").exists()
    assert steps_seen == sorted(steps_seen)
    assert 0 < steps_seen[-1] < 120
    subprocess.run(command, check=True, capture_output=True)
    assert factors(killed) == factors(tmp_path / "whole")
    assert record(killed)["log"] == record(tmp_path / "whole")["log"]


def _given(settings):
    return sorted(settings.model_fields_set - {"out"})


def wait_for_state(folder, process, newer_than):
    state = folder / "training" / "state.pt"
    deadline = time.time() + 120
    while time.time() < deadline:
        assert process.poll() is None, "it finished before it could be killed"
        if state.exists() and state.stat().st_mtime > newer_than:
            return
        time.sleep(0.01)
    raise AssertionError("no checkpoint within two minutes")


def test_two_trainings_cannot_share_a_folder(settings, tmp_path):
    (tmp_path / "adapter" / "training").mkdir(parents=True)
    with store_lock(tmp_path / "adapter" / "training"), pytest.raises(StoreLocked, match="in use by process"):
        adapt(settings(steps=2))


def test_an_unwritable_folder_is_an_error(settings, tmp_path):
    (tmp_path / "adapter").write_text("a file")
    with pytest.raises(StoreError, match="choose another --out"):
        adapt(settings(steps=2))


def test_another_recipe_cannot_resume(settings):
    with pytest.raises(ClipsieveError, match="not finite"):
        adapt(settings(learning_rate=1e30, label_free=True))
    with pytest.raises(ConfigError, match=r"training with learning_rate = 1e\+30, not 0.01; .*--out"):
        adapt(settings(learning_rate=0.01, label_free=True))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(settings, tmp_path):
    with pytest.raises(
        ClipsieveError, match=r"not finite at step \d+.*try another --out with --learning-rate 3.3e\+29"
    ):
        adapt(settings(learning_rate=1e30))
    state = torch.load(tmp_path / "adapter" / "training" / "state.pt", weights_only=True)["state"]
    assert all(torch.isfinite(value).all() for value in state["student"].values())
    assert not (tmp_path / "adapter" / "adapter.json").exists()


def test_a_finished_adapter_is_left_alone(settings, tmp_path):
    adapt(settings(steps=4))
    content = factors(tmp_path / "adapter")
    assert adapt(settings(steps=4)).was_there
    assert factors(tmp_path / "adapter") == content
    with pytest.raises(ConfigError, match="trained with steps = 4, not 5"):
        adapt(settings(steps=5))


def test_training_stops_early_and_keeps_its_best(settings):
    report = adapt(settings(steps=100, evaluate_every=2, patience=2, learning_rate=0.3, label_free=True))
    log = record(report.adapter)["log"]
    scores = [entry["held_out"]["cosine"] for entry in log]
    assert len(log) == int(np.argmax(scores)) + 1 + 2
    assert report.results["after"]["fast"]["cosine"] == pytest.approx(max(scores), abs=1e-4)


def test_undecodable_images_are_left_out(settings, album, tmp_path):
    folder = shutil.copytree(album, tmp_path / "album")
    for number in (3, 17):
        (folder / f"{number:02d}.png").write_text("not an image")
    ticks = []
    adapt(settings(data=folder, captions=folder / "captions.tsv", steps=15), lambda *tick: ticks.append(tick[1]))
    assert 0 < ticks[-1].num_failed <= 2 * 15 * 8 / 32 + 2  # each about once per epoch, unless it is held out
    assert ticks[-1].num_done == ticks[-1].num_total == 15 * 8


def test_bad_data_is_one_clear_error(settings, album, tmp_path, make_image):
    captions = tmp_path / "captions.tsv"
    captions.write_text("00.png\ta photo\nmissing.png\tanother\n")
    with pytest.raises(InputError, match=r"1 captioned images are not in the source, first 'missing.png'"):
        adapt(settings(captions=captions))
    captions.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        adapt(settings(captions=captions))
    captions.write_text("00.png\ta photo\n")
    with pytest.raises(InputError, match=r"1 images with captions.*need at least 20"):
        adapt(settings(captions=captions))
    (tmp_path / "one").mkdir()
    make_image(30, 30).save(tmp_path / "one" / "image.png")
    with pytest.raises(InputError, match=r"1 images in .*need at least 20"):
        adapt(settings(data=tmp_path / "one", label_free=True))
    for number in range(60):
        (tmp_path / "one" / f"{number}.jpg").write_text("not an image")
    with pytest.raises(InputError, match=r"only 1 of 61 images can be decoded \(\d+.jpg: .*at least 20; fix the data"):
        adapt(settings(data=tmp_path / "one", label_free=True))
    assert not (tmp_path / "adapter").exists()
    with pytest.raises(ConfigError, match="rank = 200"):
        adapt(settings(rank=200))
    assert not (tmp_path / "adapter" / "adapter.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "x", "--label-free"], "out is missing"),
        (["--out", "a", "--model", "ViT-B-32"], "data is missing"),
        (["--out", "a", "--data", "x"], "give either --captions, or --label-free"),
        (["--out", "a", "--data", "x", "--captions", "c", "--label-free"], "give either --captions, or --label-free"),
        (["--out", "a", "--label-free", "--variant", "shared"], "label-free training uses no text"),
        (["--out", "a", "--targets", "q,z"], "targets = 'q,z': expected any of q, k, v, o, mlp"),
        (["--out", "a", "--costs", "0.5"], "expected numbers from 1 to below 100"),
        (["--out", "a", "--rank", "0"], "rank = '0'"),
        (["--from", "a"], "give --export, and leave out --out"),
        (["--from", "a", "--export", "e"], "cannot read adapter"),
        (["--out", "a", "--policy", "fastest"], "expected one of"),
    ],
)
def test_wrong_flags_are_one_line(flags, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["adapt", *flags]) in (2, 3)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_disk_that_fills_leaves_no_adapter(settings, tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot write .*free up space"):
            adapt(settings(steps=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in (tmp_path / "adapter").rglob("*")] == ["training"]


def test_an_adapter_is_exported_later(settings, tmp_path, tiny_model, capsys):
    given = settings(steps=4)
    flags = [f"--{name.replace('_', '-')}={getattr(given, name)}" for name in _given(given)]
    assert main(["adapt", *flags, "--out", str(tmp_path / "adapter"), "--export", str(tmp_path / "at-once")]) == 0
    argv = ["adapt", "--model", tiny_model, "--from", str(tmp_path / "adapter"), "--export", str(tmp_path / "later")]
    assert main(argv) == 0
    names = ("open_clip_config.json", "open_clip_model.safetensors")
    for name in names:
        assert (tmp_path / "at-once" / name).read_bytes() == (tmp_path / "later" / name).read_bytes()
    assert main(argv) == 3
    assert "later already exists" in capsys.readouterr().err


def test_every_image_once_per_epoch_at_any_batch_size():
    examples = Examples(list(range(13)), [[]] * 13, 3)
    for size in (1, 4, 10, 23):
        rows = np.concatenate([examples.batch(step, size, 7, 1.0, False).rows_B for step in range(60)])
        for epoch in range(len(rows) // 10):
            assert sorted(rows[10 * epoch : 10 * epoch + 10]) == list(range(10))
    first, second = (examples.batch(step, 10, 7, 1.0, False) for step in (0, 1))
    assert not np.array_equal(first.rows_B, second.rows_B)
    assert first.boxes_B4 is first.is_mirrored_B is None


def test_crop_boxes_are_inside_the_image_and_large_enough():
    examples = Examples(list(range(100)), [[]] * 100, 0)
    batch = examples.batch(3, 1000, 7, 0.4, True)
    left, top, right, bottom = batch.boxes_B4.T
    areas = (right - left) * (bottom - top)
    assert batch.boxes_B4.min() >= 0
    assert batch.boxes_B4.max() <= 1
    assert 0.3 < areas.min() < 0.5 < 0.9 < areas.max() <= 1
    assert 0.4 < batch.is_mirrored_B.mean() < 0.6


def test_decoded_images_are_cropped_and_mirrored_as_drawn(album):
    examples = gather(album, None, 5, seed=3)
    whole, part, mirrored = np.array([[0, 0, 1, 1]]), np.array([[0.5, 0, 1, 0.5]]), np.array([True])
    rows = np.array([2])
    batches = [Batch(rows), Batch(rows, None, whole), Batch(rows, None, part), Batch(rows, None, None, mirrored)]
    preprocess = Preprocess(height=32, width=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    with Decoder(examples, preprocess) as decoder:
        plain, same, corner, flipped = (decoded.pixels[0] for decoded in decoder.ahead(iter(batches)))
    assert np.array_equal(plain, same)
    assert np.array_equal(plain[:, ::-1], flipped)
    quarter = np.asarray(Image.fromarray(plain).crop((16, 0, 32, 16)).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(corner.astype(int) - quarter)[2:-2, 2:-2].mean() < 4  # except near the edges


def test_held_out_images_are_never_used_for_training(album):
    examples = gather(album, album / "captions.tsv", 5, seed=3)
    assert examples.num_held_out == 5
    assert len({entry.key for entry in examples.entries}) == NUM_IMAGES
    rows = np.concatenate([examples.batch(step, 8, 3, 1.0, True).rows_B for step in range(30)])
    assert not set(rows) & set(examples.held_out)
    other = gather(album, album / "captions.tsv", 5, seed=4)
    assert [e.key for e in other.entries[-5:]] != [e.key for e in examples.entries[-5:]]


def test_captions_that_are_cut_are_counted(settings, album, tmp_path):
    captions = (album / "captions.tsv").read_text() + f"01.png\t{'a very long caption ' * 30}\n"
    (tmp_path / "captions.tsv").write_text(captions.replace("\n", "\r"))  # as old programs on a Mac end lines
    report = adapt(settings(captions=tmp_path / "captions.tsv", steps=1))
    assert [text.partition(" are longer")[0] for text in report.warnings] == ["1 of 81 captions"]
    assert record(report.adapter)["data"] == {
        "num_training": 32, "num_held_out": 8, "num_failed_held_out": 0, "num_cut_captions": 1
    }  # fmt: skip


def test_a_tower_that_cannot_be_pruned_has_no_adapter(settings, resnet_model):
    for policy in (None, "none"):
        with pytest.raises(InputError, match=r"can be pruned, but ModifiedResNet is not .*; choose another model"):
            adapt(settings(model=resnet_model, policy=policy))


def test_scenes_are_drawn_if_there_is_no_data(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.adapt.NUM_SCENES", 60)
    report = adapt(AdaptSettings(out=tmp_path / "a", steps=2, batch_size=4))
    assert record(report.adapter)["base"]["model"] == "scenes"


def test_settings_that_decide_no_result_are_not_in_the_recipe():
    # a finished adapter is known by its recipe: the built-in one's must stay as it is
    recipe = read_card(files("pipeline.scenes") / "adapter")["recipe"]
    assert set(recipe) == _RECIPE_FIELDS | {"policy", "precision", "threads", "weights_sha256", "data_sha256"}
