"""`clipsieve delete --missing`: rows whose images are gone from their sources, and images that return."""

import shutil

import pytest

from pipeline.compact import compact
from pipeline.delete import delete
from pipeline.errors import ConfigError, InputError, UnfinishedStore
from pipeline.settings.load import load_settings
from pipeline.settings.store import CompactSettings, DeleteSettings, VerifySettings
from pipeline.store.tombstones import DELETED, MISSING, add_tombstones, read_tombstones
from pipeline.store.view import StoreView
from pipeline.verify import verify
from query.cli.main import main
from tests.kit.jobs import Job, contents
from tests.kit.sources import folder_of
from tests.planning.test_extend_files import WRITERS, Source


@pytest.fixture
def job(tmp_path, spec):
    return Job(tmp_path / "store", spec)


@pytest.fixture
def folder(tmp_path):
    """Twenty images."""
    return folder_of(tmp_path / "photos", [f"{number:02d}.jpg" for number in range(20)])


def delete_missing(job, yes=False):
    report = delete(DeleteSettings(store=job.store.root, missing=True, yes=yes))
    assert verify(VerifySettings(store=job.store.root)).findings == []
    return report.num_rows


@pytest.mark.parametrize("is_compacted", [False, True])
def test_an_image_that_is_gone_and_returns(job, folder, tmp_path, is_compacted):
    before = job.run(folder)
    assert delete_missing(job) == 0
    for name in ("03.jpg", "17.jpg"):
        shutil.move(folder / name, tmp_path / name)
    assert delete_missing(job) == 2
    assert job.living == contents(folder)
    assert read_tombstones(job.store, MISSING).tolist() == [3, 17]
    assert delete_missing(job) == 0
    if is_compacted:
        assert compact(CompactSettings(store=job.store.root)).num_rows == 2
    last = job.record
    assert job.plan(folder) == last
    shutil.move(tmp_path / "03.jpg", folder / "03.jpg")
    assert [entry.key for entry in job.store.entries_of(job.plan(folder).plans[-1])] == ["03.jpg"]
    job.commit()
    assert job.living == {name: digest for name, digest in before.items() if name != "17.jpg"}
    assert StoreView.open(job.store.root).counts.num_images == 19
    assert delete_missing(job) == 0


def test_more_than_a_tenth_needs_a_yes(job, folder):
    job.run(folder)
    for name in ("03.jpg", "07.jpg", "17.jpg"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"3 of 20 images of .*photos are gone, first '03.jpg', .* 10%; .* --yes"):
        delete_missing(job)
    assert len(job.living) == 20
    assert delete_missing(job, yes=True) == 3


def test_the_share_is_that_of_each_source(job, folder, tmp_path):
    job.run(folder)
    (tmp_path / "more").mkdir()
    for name in ("x.jpg", "y.jpg"):
        (tmp_path / "more" / name).write_text(name)
    job.run(tmp_path / "more")
    (tmp_path / "more/x.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 images of .*more are gone"):
        delete_missing(job)
    (folder / "03.jpg").unlink()
    assert delete_missing(job, yes=True) == 2


def test_every_source_must_be_there(job, folder, tmp_path):
    job.run(folder)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/x.jpg").write_text("x")
    job.run(tmp_path / "more")
    (folder / "03.jpg").unlink()
    shutil.move(tmp_path / "more", tmp_path / "unmounted")
    with pytest.raises(InputError, match=r"nothing was deleted, .* cannot be listed .*: source .*more does not exist"):
        delete_missing(job, yes=True)
    assert "03.jpg" in job.living


def test_an_image_that_another_list_still_names_is_not_missing(job, folder, tmp_path):
    (folder / "20.jpg").write_text("only in b")
    for name, count in (("a", 20), ("b", 21)):
        (tmp_path / f"{name}.csv").write_text("path\n" + "\n".join(f"photos/{n:02d}.jpg" for n in range(count)))
        job.run(tmp_path / f"{name}.csv")
    (tmp_path / "a.csv").write_text("path\nphotos/00.jpg\n")
    assert delete_missing(job) == 0
    (tmp_path / "b.csv").write_text("path\n" + "\n".join(f"photos/{n:02d}.jpg" for n in range(1, 20)))
    assert delete_missing(job, yes=True) == 1
    assert "photos/20.jpg" not in job.living
    assert len(job.living) == 20


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_that_is_gone_and_returns(job, tmp_path, suffix):
    source = Source(tmp_path / "sets", suffix)
    source.write("a", range(30))
    path = source.write("b", range(3))
    images = dict(source.images)
    job.plan(source.pattern)
    job.commit(failing={list(images)[-1]: "timeout"})
    job.run(source.pattern, retried=["timeout"])  # one of its rows is in a plan of its own
    add_tombstones(job.store, [number for number, key in job.ids().items() if key == list(images)[2]], DELETED)
    shutil.move(path, tmp_path / "away")
    assert delete_missing(job) == 3
    assert job.plan(source.pattern) == job.record
    assert len(job.living) == 29
    shutil.move(tmp_path / "away", path)
    job.run(source.pattern)
    assert job.living == {key: digest for key, digest in images.items() if key != list(images)[2]}
    assert delete_missing(job) == 0


def test_a_file_that_the_listing_leaves_out_is_not_gone(job, folder):
    # a new listing of a folder may leave out what is still there, such as a linked folder
    job.run(folder)
    (folder / "03.jpg").rename(folder / ".hidden")
    (folder / "03.jpg").mkdir()
    assert delete_missing(job) == 0


def test_deleted_images_stay_deleted(job, folder, tmp_path):
    job.run(folder)
    add_tombstones(job.store, [3], DELETED, {3: "03.jpg"})
    shutil.move(folder / "03.jpg", tmp_path / "03.jpg")
    assert delete_missing(job) == 0
    shutil.move(tmp_path / "03.jpg", folder / "03.jpg")
    job.run(folder)
    assert "03.jpg" not in job.living


def test_an_unfinished_store_is_refused(job, folder):
    job.plan(folder)
    job.commit(2)
    (folder / "03.jpg").unlink()
    with pytest.raises(UnfinishedStore, match=r"5 of 7 shards are missing; finish it with the same embed command"):
        delete_missing(job)


def test_the_command_line(job, folder, capsys, tmp_path):
    job.run(folder)
    root = str(job.store.root)
    assert main(["delete", root, "--missing"]) == 0
    assert "no image is gone from its source" in capsys.readouterr().out
    (folder / "03.jpg").unlink()
    assert main(["delete", root, "--missing"]) == 0
    assert "1 images deleted that are gone from their sources" in capsys.readouterr().out
    (tmp_path / "keys.txt").write_text("03.jpg\n")
    assert main(["delete", root, "--keys", str(tmp_path / "keys.txt")]) == 0  # it counts as deleted before
    assert "0 images deleted for 1 keys; 1 keys were already deleted" in capsys.readouterr().out
    assert StoreView.open(job.store.root).counts.num_images == 19


@pytest.mark.parametrize("argv", [["store"], ["store", "--keys", "k", "--missing"]])
def test_keys_or_missing(argv):
    with pytest.raises(ConfigError, match="give either --keys FILE or --missing"):
        load_settings(DeleteSettings, "delete", argv, "")
