"""`embed` of a source without news: an answer without Ray, torch or the model; and what a run says at its end."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.choices import is_up_to_date
from pipeline.delete import delete
from pipeline.durable.seal import write_sealed_json
from pipeline.embed_report import EmbedReport, write_report
from pipeline.embedding import embed
from pipeline.errors import ConfigError, StoreError
from pipeline.planning.extend import find_changes
from pipeline.settings.embed import EmbedSettings
from pipeline.settings.store import DeleteSettings
from pipeline.source.left_out import Kind
from pipeline.source.listing import list_source
from pipeline.store.layout import Store
from pipeline.store.view import StoreView
from query.cli.main import main
from tests.kit.no_workers import Started, refuse_workers
from tests.kit.plain_embed import embed_plainly
from tests.kit.sources import tar_of

PROGRAM = "import sys; from query.cli.main import main; code = main(sys.argv[1:]); print(*sys.modules); sys.exit(code)"
HEAVY = {"ray", "torch", "open_clip"}


no_workers = pytest.fixture(autouse=True)(refuse_workers)


@pytest.fixture(scope="module")
def original(tmp_path_factory, photos, tiny_model):
    """Settings of a finished store, as a run of `embed` leaves it. Read-only: use `settings` to change it."""
    root = tmp_path_factory.mktemp("original")
    shutil.copytree(Path(tiny_model.removeprefix("local-dir:")), root / "model")
    shutil.copytree(photos, root / "photos")
    model = f"local-dir:{root / 'model'}"
    embed_plainly(root / "photos", root / "store", model)
    settings = EmbedSettings(source=root / "photos", out=root / "store", model=model)
    record_end(settings)
    return settings


def record_end(settings):
    """Write what a run writes at its end."""
    listing = list_source(settings.image_source())
    store = Store(settings.out)
    view = StoreView.now(store, store.read_record())
    changes = find_changes(view, listing, **settings.comparison())
    write_report(EmbedReport.of(view, listing, changes, settings))
    assert is_up_to_date(settings, view, changes)


@pytest.fixture
def settings(original, tmp_path):
    """Settings of a copy of the store, of its photos and of its model."""
    places = {name: tmp_path / name for name in ("store", "photos", "model")}
    for name, place in places.items():
        shutil.copytree(original.out.parent / name, place)
    model = f"local-dir:{places['model']}"
    embed_plainly(places["photos"], tmp_path / "store-of-copy", model)
    settings = EmbedSettings(source=places["photos"], out=tmp_path / "store-of-copy", model=model)
    record_end(settings)
    return settings


def with_other(settings, **changes):
    return EmbedSettings(**{"source": settings.source, "out": settings.out, "model": settings.model, **changes})


def argv(settings):
    return ["embed", settings.source, "--out", str(settings.out), "--model", settings.model]


def files_of(store):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.rglob("*") if path.is_file()}


def test_neither_ray_nor_torch_is_imported(original):
    before = files_of(original.out)
    run = subprocess.run([sys.executable, "-c", PROGRAM, *argv(original)], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert lines[:2] == ["12 of 12 images embedded", "nothing new to embed"]
    assert not HEAVY & set(lines[-1].split())
    assert "pipeline.embedding" in lines[-1].split()
    assert files_of(original.out) == before


def test_the_report_has_the_counts_and_no_device(original):
    report = embed(original)
    assert (report.num_images, report.num_ok, report.num_embedded, report.device) == (12, 12, 0, None)
    assert report.images_per_second_end_to_end is None
    assert report.warnings == []


@pytest.mark.parametrize(
    "changes",
    [{"policy": "none"}, {"keep_ratio": 0.4}, {"model": "scenes"}, {"decoder": "torchvision"}],
    ids=str,
)
def test_another_encoder_is_left_to_the_workers(original, changes):
    with pytest.raises(Started):
        embed(with_other(original, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cuda"},
        {"ray_address": "127.0.0.1:1"},
        {"workers": 2},
        {"workers": 2, "min_workers": 1},
        {"metrics_port": 9999},
        {"wandb": "project"},
    ],
    ids=str,
)
def test_what_only_workers_can_serve_is_left_to_them(original, changes):
    with pytest.raises((Started, ConfigError)):  # wandb may not be installed
        embed(with_other(original, **changes))


def test_weights_that_may_have_changed_are_left_to_the_workers(settings):
    weights = Path(settings.model.removeprefix("local-dir:")) / "open_clip_model.safetensors"
    embed(settings)
    os.utime(weights, ns=(1, 1))
    with pytest.raises(Started):
        embed(settings)
    weights.unlink()
    with pytest.raises(Started):
        embed(settings)


def test_a_store_whose_last_run_did_not_record_the_weights(settings):
    summary = Store(settings.out).summary_path
    write_sealed_json(summary, {"store": {}, "last_run": {}})  # as older versions wrote it
    with pytest.raises(Started):
        embed(settings)
    summary.write_text("damaged")
    with pytest.raises(Started):
        embed(settings)
    summary.unlink()
    with pytest.raises(Started):
        embed(settings)


def test_news_is_left_to_the_workers(settings):
    photos = Path(settings.source)
    shutil.copy(photos / "photo-01.png", photos / "new.png")
    with pytest.raises(Started):
        embed(settings)
    (photos / "new.png").unlink()
    embed(settings)
    Store(settings.out).marker_path(1).unlink()
    with pytest.raises(Started):
        embed(settings)


def test_what_is_refused_is_still_refused(settings):
    with pytest.raises(ConfigError, match="--batch-size 2 --max-pixels 5000, but this run asks for 5, 3 and 5000"):
        embed(with_other(settings, batch_size=3))
    with pytest.raises(ConfigError, match=r"asks for 5, 2 and 6000; .*, or add --retry too_large to try larger images"):
        embed(with_other(settings, max_pixels=6000))
    (settings.out.parent / "list.csv").write_text("path,x\nphotos/photo-01.png,1\n")
    with pytest.raises(ConfigError, match=r"carries the columns \(none\), but this source has x"):
        embed(with_other(settings, source=settings.out.parent / "list.csv", columns="x"))
    os.utime(Path(settings.source) / "photo-01.png", ns=(1, 1))
    with pytest.raises(StoreError, match=r"1 images or files .* changed .* first 'photo-01.png'"):
        embed(settings)
    assert embed(with_other(settings, on_change="keep")).num_embedded == 0
    with pytest.raises(Started):
        embed(with_other(settings, on_change="embed"))


def test_a_retry_needs_a_store_and_something_that_failed(settings, capsys):
    with pytest.raises(StoreError, match=r"no store at .*/mistyped"):
        embed(with_other(settings, out=settings.out.parent / "mistyped", retry="failed"))
    assert not (settings.out.parent / "mistyped").exists()
    assert main([*argv(settings), "--retry", "timeout,crashed", "--max-pixels", "9000"]) == 0
    assert "no image of this source to try again with --retry timeout,crashed" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["ok", "timeout,slow", "", ","])
def test_a_retry_names_statuses(original, value):
    with pytest.raises(ValueError, match="expected failed, or some of unreadable, undecodable, too_large, timeout"):
        with_other(original, retry=value)


def test_all_statuses(original):
    names = set(with_other(original, retry="failed").comparison()["retried"])
    assert names == {"unreadable", "undecodable", "too_large", "timeout", "crashed"}
    assert with_other(original, retry=" timeout , crashed").comparison()["retried"] == ("timeout", "crashed")


# --- what a run says at its end


def test_images_that_are_gone_are_counted(settings, capsys):
    (Path(settings.source) / "photo-01.png").unlink()
    (Path(settings.source) / "photo-02.jpg").unlink()
    assert main([*argv(settings), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_gone"] == 2
    assert main(argv(settings)) == 0
    text = capsys.readouterr().out
    assert "gone from the source, but still in the store: 2 (first 'photo-01.png'); to delete them: clipsieve d" in text
    stats = json.loads(Store(settings.out).summary_path.read_text())
    assert stats["gone"] == {"num_images": 2, "first": "photo-01.png"}
    assert main(["delete", str(settings.out), "--missing", "--yes"]) == 0
    capsys.readouterr()
    assert main(argv(settings)) == 0
    text = capsys.readouterr().out
    assert "10 of 10 images embedded" in text
    assert "gone from the source" not in text


def test_files_that_are_left_out_are_counted_when_nothing_is_new(settings, capsys):
    (Path(settings.source) / "notes.txt").write_text("x")
    assert main(argv(settings)) == 0
    assert "left out: files without an image suffix: 1 (first 'notes.txt')" in capsys.readouterr().out
    stats = json.loads(Store(settings.out).summary_path.read_text())
    assert stats["store"]["left_out"]["counts"] == {"other_suffix": 1}


def test_a_tar_that_was_planned_anew_counts_once(tmp_path, photos, tiny_model):
    images = [path.read_bytes() for path in sorted(photos.glob("*.jpg"))]
    tars = tmp_path / "tars"
    tars.mkdir()
    for count, on_change in ((1, "stop"), (2, "embed")):
        members = {f"{number}.jpg": data for number, data in enumerate(images[:count])}
        (tars / "a.tar").write_bytes(tar_of({**members, "9.txt": b"alone"}))
        embed_plainly(tars / "*.tar", tmp_path / "store", tiny_model, on_change=on_change)
        settings = EmbedSettings(source=str(tars / "*.tar"), out=tmp_path / "store", model=tiny_model)
        record_end(settings)
        assert embed(settings).left_out.counts == {Kind.TEXT_WITHOUT_IMAGE: 1}
    (tars / "b.tar").write_bytes(tar_of({"1.jpg": images[2]}))
    embed_plainly(tars / "*.tar", tmp_path / "store", tiny_model)
    (tars / "a.tar").unlink()
    delete(DeleteSettings(store=tmp_path / "store", missing=True, yes=True))
    assert embed(settings).left_out.counts == {}


def test_a_caption_column_that_is_named_too_late_is_a_warning(tmp_path, photos, tiny_model):
    image, warnings = (photos / "photo-01.png").read_bytes(), []
    (tmp_path / "a.tar").write_bytes(tar_of({"1.png": image, "1.txt": b"text", "1.json": b'{"caption": "field"}'}))
    embed_plainly(tmp_path / "a.tar", tmp_path / "store", tiny_model)
    settings = EmbedSettings(source=tmp_path / "a.tar", out=tmp_path / "store", model=tiny_model)
    record_end(settings)
    embed(settings, on_warning=warnings.append)
    assert warnings == []
    named = with_other(settings, caption_column="caption")
    assert embed(named, on_warning=warnings.append).num_embedded == 0
    [warning] = warnings
    assert warning.startswith("--caption-column caption: 1 tars of ")
    embed_plainly(tmp_path / "a.tar", tmp_path / "other", tiny_model, caption_column="caption")
    other = with_other(named, out=tmp_path / "other", caption_column="caption")
    record_end(other)
    embed(other, on_warning=warnings.append)
    assert len(warnings) == 1


def test_failed_images_and_how_to_try_them_again(tmp_path, photos, make_image, tiny_model, capsys):
    source = shutil.copytree(photos, tmp_path / "photos")
    (source / "broken.jpg").write_text("x")
    make_image(100, 100).save(source / "large.png")
    embed_plainly(source, tmp_path / "store", tiny_model)
    settings = EmbedSettings(source=source, out=tmp_path / "store", model=tiny_model)
    record_end(settings)
    assert main(argv(settings)) == 0
    text = capsys.readouterr().out
    assert "12 of 14 images embedded, 1 too_large, 1 undecodable" in text
    what = "the same command with --retry too_large,undecodable, and a higher --max-pixels"
    assert f"to try failed images again: {what}\n" in text
    assert main([*argv(settings), "--max-bad-fraction", "0.2"]) == 0
    capsys.readouterr()
    assert main([*argv(settings), "--max-bad-fraction", "0.1"]) == 3
    assert "error: 2 of 14 images failed (1 too_large, 1 undecodable), more than --max-bad-" in capsys.readouterr().err


def test_every_image_of_a_source_failed(tmp_path, photos, tiny_model, capsys):
    embed_plainly(photos, tmp_path / "store", tiny_model)  # one good source does not hide a bad one
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.jpg").write_text("x")
    (tmp_path / "bad/b.jpg").symlink_to("nowhere")
    embed_plainly(tmp_path / "bad", tmp_path / "store", tiny_model)
    settings = EmbedSettings(source=tmp_path / "bad", out=tmp_path / "store", model=tiny_model)
    record_end(settings)
    assert main(argv(settings)) == 3
    found = capsys.readouterr()
    assert "12 of 14 images embedded, 1 undecodable, 1 unreadable" in found.out
    assert "error: every image of this source failed (1 undecodable, 1 unreadable); the error column" in found.err
    assert main(argv(with_other(settings, source=photos))) == 0
