"""Failed images that are tried again, with a real model: what readers of the store see then."""

import io
import shutil
import tarfile

import numpy as np
import pillow_heif
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.compact import compact
from pipeline.pixels import opening
from pipeline.settings.store import CompactSettings, VerifySettings
from pipeline.store.view import StoreView
from pipeline.verify import verify
from query.searcher import Searcher
from tests.kit.plain_embed import embed_plainly
from tests.kit.sources import tar_of

LARGE = ["large-1.png", "large-2.png"]


@pytest.fixture
def images(make_image):
    """The bytes of three good images, two that are too large and a broken one, by name."""
    found = {"broken.png": b"not an image"}
    for number, name in enumerate(["a.png", "b.png", "c.png", *LARGE]):
        buffer = io.BytesIO()
        make_image(*((100, 90) if name in LARGE else (40, 30)), number).save(buffer, "PNG")
        found[name] = buffer.getvalue()
    return found


def write_folder(place, images):
    (place / "photos").mkdir()
    for name, data in images.items():
        (place / "photos" / name).write_bytes(data)
    return place / "photos", {}


def write_tar(place, images):
    (place / "a.tar").write_bytes(tar_of(images))
    return place / "a.tar", {}


def write_parquet(place, images):
    pq.write_table(pa.table({"image": list(images.values()), "name": list(images)}), place / "a.parquet")
    return place / "a.parquet", {"key_column": "name"}


def write_list(place, images):
    write_folder(place, images)
    (place / "list.csv").write_text("\n".join(["path", *(f"photos/{name}" for name in images)]))
    return place / "list.csv", {}


def rows_of(store):
    view, found = StoreView.open(store.root), {}
    for _, table in view.parts(["id", "key", "status", "error", "embedding"]):
        for row in table.to_pylist():
            if row["id"] not in view.deleted:
                found[row["key"].rpartition("/")[2]] = row
    return found


@pytest.mark.parametrize("write", [write_folder, write_list, write_tar, write_parquet])
def test_images_that_were_too_large(tmp_path, images, tiny_model, write):
    source, spec = write(tmp_path, images)
    plain = embed_plainly(source, tmp_path / "plain", tiny_model, **spec)
    store = embed_plainly(source, tmp_path / "store", tiny_model, **spec)
    assert {name for name, row in rows_of(store).items() if row["status"] == "too_large"} == set(LARGE)
    embed_plainly(source, store.root, tiny_model, retried=["too_large"], max_pixels=9000, **spec)
    rows = rows_of(store)
    assert {name: row["status"] for name, row in rows.items() if row["status"] != "ok"} == {"broken.png": "undecodable"}
    for name, row in rows_of(plain).items():  # the others keep their rows
        assert name in LARGE or row == rows[name]
    report = verify(VerifySettings(store=store.root, resample=100))
    assert report.findings == []
    assert (report.num_images, report.num_ok, report.failed) == (6, 5, {"undecodable": 1})
    assert (report.resample.num_compared, report.resample.changed) == (5, [])
    assert np.isclose(report.resample.min_cosine, 1)
    assert build_index(IndexSettings(store=store.root)).num_vectors == 5
    hits = Searcher.open(store.root).search("a cat", 100)
    assert {hit.key.rpartition("/")[2] for hit in hits} == rows.keys() - {"broken.png"}
    assert compact(CompactSettings(store=store.root)).num_rows == len(LARGE)
    assert rows_of(store) == rows
    found = verify(VerifySettings(store=store.root))
    assert (found.findings, found.num_images, found.failed) == ([], 6, {"undecodable": 1})


def test_images_whose_plugin_was_installed_later(tmp_path, photos, tiny_model, make_image, monkeypatch):
    source = shutil.copytree(photos, tmp_path / "photos")
    pillow_heif.from_pillow(make_image(40, 30)).save(source / "phone.heic")
    formats = opening._formats()
    with monkeypatch.context() as patch:
        patch.setattr(opening, "_formats", lambda: [name for name in formats if name != "HEIF"])
        store = embed_plainly(source, tmp_path / "store", tiny_model)
    assert rows_of(store)["phone.heic"]["status"] == "undecodable"
    embed_plainly(source, store.root, tiny_model, retried=["undecodable"])
    assert rows_of(store)["phone.heic"]["status"] == "ok"
    assert StoreView.open(store.root).counts.failed == {}


def test_a_member_that_is_gone_stays_a_row_with_the_reason(tmp_path, images, tiny_model):
    source, _ = write_tar(tmp_path, images)
    store = embed_plainly(source, tmp_path / "store", tiny_model)
    embed_plainly(source, store.root, tiny_model, retried=["undecodable"])
    row = rows_of(store)["broken.png"]
    assert (row["status"], row["error"]) == ("undecodable", "not an image (12 bytes)")
    with tarfile.open(source) as archive:
        assert "broken.png" in archive.getnames()
