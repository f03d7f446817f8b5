"""Rows embedded again and compared with what is stored: `clipsieve verify --resample`."""

import json
import shutil
import tarfile

import pytest
from safetensors.torch import load_file, save_file

from pipeline.durable.seal import write_sealed_json
from pipeline.errors import InputError
from pipeline.settings.store import VerifySettings
from pipeline.source.access.credentials import KEYRING
from pipeline.source.secrets import NEEDS_FRESH_LINKS
from pipeline.verify import verify
from query.cli.main import main
from tests.kit.damage import check, rewrite, with_value
from tests.kit.plain_embed import embed_plainly
from tests.kit.signed_links import Site, serving_signed, signed
from tests.kit.sources import tar_of


@pytest.mark.usefixtures("keep_threads")
def test_resampled_rows_are_bit_identical(original):
    result = check(original, resample=5).resample
    assert (result.num_compared, result.num_equal, result.changed) == (5, 5, [])
    assert check(original, resample=100).resample.num_equal == 12


@pytest.mark.usefixtures("keep_threads")
def test_a_wrong_embedding_is_found_by_resampling(store):
    rewrite(store, 1, with_value("embedding", 1, lambda old: old[::-1]))
    assert check(store).findings == []
    report = check(store, resample=100)
    [finding] = report.findings
    assert f"{store.part_path(1)}: the embedding of 'more/photo-09.png' has cosine" in finding
    assert (report.resample.num_compared, report.resample.num_equal) == (12, 11)


@pytest.mark.usefixtures("keep_threads")
def test_changed_sources_are_not_findings(tmp_path, photos, tiny_model, make_image):
    source = shutil.copytree(photos, tmp_path / "photos")
    store = embed_plainly(source, tmp_path / "store", tiny_model)
    make_image(9, 9).save(source / "photo-01.png")
    (source / "photo-02.jpg").unlink()
    (source / "photo-04.jpg").write_text("broken")
    report = check(store, resample=100)
    assert report.findings == []
    assert (report.resample.num_compared, report.resample.num_equal) == (9, 9)
    assert [text.partition(":")[0] for text in report.resample.changed] == [
        "'photo-01.png'", "'photo-02.jpg'", "'photo-04.jpg'"
    ]  # fmt: skip


@pytest.mark.usefixtures("keep_threads")
def test_signed_links_need_fresh_ones(tmp_path, photos, tiny_model):
    with serving_signed() as url:
        Site.files |= {f"/{path.name}": path.read_bytes() for path in photos.glob("*.jpg")}
        Site.files["/0.tar"] = tar_of({path.name: path.read_bytes() for path in photos.glob("*.jpg")})
        links = "\n".join(signed(url, target) for target in Site.files if target != "/0.tar")
        (tmp_path / "list.csv").write_text(f"url\n{links}\n")
        stores = [
            embed_plainly(tmp_path / "list.csv", tmp_path / "of-list", tiny_model),
            embed_plainly(signed(url, "/0.tar"), tmp_path / "of-tar", tiny_model),
        ]
        KEYRING.clear()
        for store, reason in zip(
            stores, (f"403 Forbidden; {NEEDS_FRESH_LINKS}", "if its link was signed, it needs a fresh one"), strict=True
        ):
            report = check(store, resample=2)
            assert report.findings == []
            assert len(report.resample.changed) == 2
            assert [reason in text for text in report.resample.changed] == [True, True]
            assert "Signature" not in str(report.resample.changed)


@pytest.mark.usefixtures("keep_threads")
def test_a_tar_that_changed(tmp_path, photos, tiny_model):
    for name in ("one", "other"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            archive.add(photos / "photo-01.png", f"{name}.png")
    store = embed_plainly(str(tmp_path / "*.tar"), tmp_path / "store", tiny_model, source_format="webdataset")
    (tmp_path / "one.tar").write_bytes(b"")
    report = check(store, resample=2)
    assert report.findings == []
    assert report.resample.num_equal == 1
    [text] = report.resample.changed
    assert text.startswith("'one.tar/one.png': file:///")
    assert "changed since the run was planned" in text


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize("is_earlier", [False, True])
def test_links_in_a_tar(tmp_path, photos, tiny_model, monkeypatch, is_earlier):
    paths = sorted(photos.glob("*.png"))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for number, path in enumerate(paths):
            link = tarfile.TarInfo(f"{number}.link.png")
            link.type, link.linkname = tarfile.SYMTYPE, f"{len(paths) - 1 - number}.png"
            archive.addfile(link)
            archive.add(path, f"{number}.png")
    with monkeypatch.context() as patch:
        if is_earlier:  # a version that passed over links made the store
            patch.setattr("pipeline.source.formats.webdataset.is_link", lambda member: False)
        store = embed_plainly(tmp_path / "x.tar", tmp_path / "store", tiny_model)
    report = check(store, resample=100)
    assert (report.findings, report.resample.changed) == ([], [])
    assert report.num_images == (1 if is_earlier else 2) * len(paths)
    assert report.resample.num_equal == report.resample.num_compared == report.num_ok > 2


@pytest.mark.usefixtures("keep_threads")
def test_other_weights_cannot_resample(store, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model.removeprefix("local-dir:"), tmp_path / "model")
    record = store.read_record()
    moved = record.encoder.source.model_copy(update={"model": f"local-dir:{model}"})
    encoder = record.encoder.model_copy(update={"source": moved})
    write_sealed_json(store.record_path, record.model_copy(update={"encoder": encoder}).model_dump(mode="json"))
    assert check(store, resample=1).findings == []
    tensors = load_file(model / "open_clip_model.safetensors")
    tensors["visual.proj"] = tensors["visual.proj"] + 1
    save_file(tensors, model / "open_clip_model.safetensors")
    with pytest.raises(InputError, match="restore the original weights to resample"):
        check(store, resample=1)


@pytest.mark.usefixtures("keep_threads")
def test_if_nothing_can_be_compared_that_is_said_and_not_success(tmp_path, photos, tiny_model, capsys):
    source = shutil.copytree(photos, tmp_path / "photos")
    store = embed_plainly(source, tmp_path / "store", tiny_model)
    shutil.rmtree(source)
    assert main(["verify", str(store.root), "--resample", "3", "--device", "cpu"]) == 4
    captured = capsys.readouterr()
    assert "nothing was compared" in captured.out
    assert "1.000000" not in captured.out
    assert "error: nothing could be compared: the sources of all 3 chosen rows are gone or have changed" in captured.err
    assert "verify without --resample\n" in captured.err
    assert main(["verify", str(store.root), "--resample", "3", "--device", "cpu", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["resample"]["min_cosine"] is None


@pytest.mark.usefixtures("keep_threads")
def test_a_store_without_embeddings_has_nothing_to_compare(tmp_path, tiny_model, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("no image")
    store = embed_plainly(tmp_path / "photos", tmp_path / "store", tiny_model)
    assert main(["verify", str(store.root), "--resample", "3", "--device", "cpu"]) == 4
    assert "nothing could be compared: the store has no row with an embedding" in capsys.readouterr().err


@pytest.mark.usefixtures("keep_threads")
def test_progress_is_reported_by_step(original):
    ticks = []
    verify(VerifySettings(store=original.root, resample=5, device="cpu"), lambda *tick: ticks.append(tick))
    shards = [tick.num_done for name, tick in ticks if name == "verify"]
    rows = [(tick.num_done, tick.num_total) for name, tick in ticks if name == "embed again"]
    assert shards == sorted(shards)
    assert len(shards) == 4
    assert rows == [(number, 5) for number in range(1, 6)]
