"""Which images `evaluate` ranks, and how it counts the others."""

import shutil
from types import SimpleNamespace

import pytest

from pipeline.errors import InputError
from pipeline.source.formats.captions import list_captioned
from pipeline.store.tombstones import DELETED, add_tombstones
from pipeline.store.view import StoreView
from query.evaluation.answers import answer
from query.evaluation.raw.folder import SweepFolder
from tests.kit.plain_embed import embed_plainly

NAMES = ("none", "fast")


@pytest.fixture(scope="module")
def source(tmp_path_factory, photos):
    """12 good photos, and two files that are no images: one with a caption, one without."""
    folder = shutil.copytree(photos, tmp_path_factory.mktemp("source") / "photos")
    for name in ("broken.jpg", "captioned.jpg"):
        (folder / name).write_text("no image")
    (folder / "captions.tsv").write_text("photo-01.png\ta cat\ncaptioned.jpg\ta dog\nmore/photo-03.png\ta cow\n")
    return folder


@pytest.fixture
def answered(source, tiny_model, tmp_path):
    """Answers from a store per condition, changed by `change(stores)`, for the images but those `without`."""

    def run(change=lambda stores: None, without=()):
        stores = {name: embed_plainly(source, tmp_path / name, tiny_model) for name in NAMES}
        change(stores)
        reports = {}
        for name, store in stores.items():
            record = store.read_record()
            reports[name] = SimpleNamespace(record=record, view=StoreView.now(store, record))
        entries, captions = list_captioned(source, source / "captions.tsv")
        ticks = []
        listed = [entry for entry in entries if entry.key not in without]
        answers = answer(reports, captions, listed, SweepFolder(tmp_path / "raw"), lambda *tick: ticks.append(tick), {})
        assert [(name, tick.num_done, tick.num_total) for name, tick in ticks] == [("captions", 2, 2)]
        return answers.counts

    return run


def delete(store, key):
    for _, table in StoreView.now(store, store.read_record()).parts(["id", "key"]):
        add_tombstones(store, [row["id"] for row in table.to_pylist() if row["key"] == key], DELETED)


def test_every_image_that_cannot_be_decoded_counts(answered):
    counts = answered()
    assert (counts["num_images"], counts["num_captions"]) == (12, 2)
    assert (counts["num_failed_images"], counts["num_left_out"]) == (2, 0)


def test_images_of_other_runs_are_left_out(answered):
    counts = answered(without=["photo-02.jpg", "photo-04.jpg", "broken.jpg"])
    assert (counts["num_images"], counts["num_failed_images"], counts["num_left_out"]) == (10, 1, 2)


def test_deleted_rows_are_not_ranked(answered):
    counts = answered(lambda stores: [delete(store, "photo-02.jpg") for store in stores.values()])
    assert (counts["num_images"], counts["num_failed_images"], counts["num_left_out"]) == (11, 3, 0)


def test_all_conditions_rank_the_same_images(answered):
    # as after a timeout under one condition
    counts = answered(lambda stores: delete(stores["fast"], "photo-02.jpg"))
    assert (counts["num_images"], counts["num_failed_images"]) == (11, 3)


def test_no_captioned_image_is_left(answered):
    with pytest.raises(InputError, match="none of the 3 captioned images could be embedded; the first is 'photo-01"):
        answered(without=["photo-01.png", "more/photo-03.png"])
