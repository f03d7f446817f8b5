"""Rows embedded again and compared with what is stored: `clipsieve verify --resample`."""

import shutil
import tarfile

import pytest
from safetensors.torch import load_file, save_file

from pipeline.durable.seal import write_sealed_json
from pipeline.errors import InputError
from pipeline.source.access.credentials import KEYRING
from pipeline.source.secrets import NEEDS_FRESH_LINKS
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
