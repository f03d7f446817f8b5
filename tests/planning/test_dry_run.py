"""`embed --dry-run`: estimates a run and writes nothing."""

import io
import shutil
import tarfile

import pytest

from pipeline.dry_run import estimate
from pipeline.errors import InputError, StoreError
from pipeline.settings.embed import EmbedSettings
from tests.kit.plain_embed import embed_plainly


def settings(source, tmp_path, tiny_model, **more):
    return EmbedSettings(source=str(source), out=tmp_path / "store", model=tiny_model, precision="fp32", **more)


def test_a_folder(photos, tmp_path, tiny_model, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    sections = estimate(settings(photos, tmp_path, tiny_model, shard_size=5))
    assert list(sections) == ["source", "run", "needs"]
    assert sections["source"] == {
        "what": f"folder {photos}",
        "images": "12",
        "bytes": sections["source"]["bytes"],
        "shards": "3",
        "failed in the sample": "0 of 12",
    }
    assert "balanced" in sections["run"]["encoder"]
    assert sections["run"]["end to end"].startswith("about ")
    assert sections["needs"]["index"].startswith(f"{(4 * 32 + 8) * 12 / 1000:.3g} kB on disk")
    assert sections["needs"]["VRAM"] == "none"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["work"]
    assert not list((tmp_path / "work").iterdir())


def test_images_in_tars_are_estimated_from_their_size(photos, tmp_path, tiny_model):
    (tmp_path / "tars").mkdir()
    for number in range(3):
        with tarfile.open(tmp_path / "tars" / f"{number}.tar", "w") as archive:
            for path in sorted(photos.glob("*.*")):
                data = path.read_bytes()
                info = tarfile.TarInfo(path.name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    count = len(list(photos.glob("*.*")))
    source = estimate(settings(tmp_path / "tars" / "*.tar", tmp_path, tiny_model))["source"]
    assert source["shards"] == "3"
    about, number = source["images"].split()
    assert about == "about"
    assert 3 * count <= int(number) <= 6 * count  # with images this small, blocks and headers count too


def test_a_column_that_no_image_of_a_tar_has_is_a_warning(photos, tmp_path, tiny_model):
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.add(next(photos.glob("*.jpg")), "a.jpg")
    found = estimate(settings(tmp_path / "0.tar", tmp_path, tiny_model, columns="lisence"))["source"]
    assert found["warning"].startswith("--columns lisence: no .json of the first 1 images of file://")
    assert "warning" not in estimate(settings(tmp_path / "0.tar", tmp_path, tiny_model))["source"]


def test_errors_of_the_run_are_raised(tmp_path, tiny_model):
    with pytest.raises(InputError, match="does not exist"):
        estimate(settings(tmp_path / "none", tmp_path, tiny_model))
    assert not (tmp_path / "store").exists()


def test_the_first_files_may_be_empty(photos, tmp_path, tiny_model):
    for name in ("0.tar", "1.tar"):
        with tarfile.open(tmp_path / name, "w") as archive:
            if name == "1.tar":
                archive.add(next(photos.glob("*.jpg")), "a.jpg")
    found = estimate(settings(tmp_path / "*.tar", tmp_path, tiny_model))
    assert found["source"]["failed in the sample"] == "0 of 1"
    with pytest.raises(InputError, match=r"0.tar contains no images; name tars or files"):
        estimate(settings(tmp_path / "0.tar", tmp_path, tiny_model))


def test_what_a_store_lacks_and_what_would_be_tried_again(photos, tmp_path, tiny_model, make_image):
    source = shutil.copytree(photos, tmp_path / "photos")
    (source / "broken.jpg").write_text("x")
    embed_plainly(source, tmp_path / "store", tiny_model)
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.*")}
    make_image(30, 30).save(source / "new.png")
    asked = settings(source, tmp_path, tiny_model, retry="undecodable,timeout")
    found = estimate(asked)["source"]
    assert (found["not in the store"], found["to try again"]) == ("1 images", "1 images")
    (source / "photo-01.png").write_text("changed")
    with pytest.raises(StoreError, match="1 images or files of the store"):
        estimate(asked)
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.*")} == before
    with pytest.raises(StoreError, match="no store at"):
        estimate(asked.model_copy(update={"out": tmp_path / "mistyped"}))


def test_repeated_keys_are_found_before_the_model_is_loaded(tmp_path):
    (tmp_path / "list.csv").write_text("path\na.jpg\na.jpg\n")
    with pytest.raises(InputError, match=r"has the key 'a.jpg' twice"):
        estimate(settings(tmp_path / "list.csv", tmp_path, "local-dir:/no/such/model"))
