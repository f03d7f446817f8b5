"""Reads, resumes, verifies, searches and applies what earlier code wrote; see tests/earlier/README.md."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.compact import compact
from pipeline.embedding import embed
from pipeline.model.adapter.files import read_adapter
from pipeline.settings.embed import EmbedSettings
from pipeline.settings.store import CompactSettings, VerifySettings
from pipeline.store.view import StoreView
from pipeline.verify import verify
from query.searcher import Searcher

ARCHIVE = Path(__file__).parent / "earlier" / "2026-11-26.tar.xz"
HOME = Path("/tmp/clipsieve-earlier")  # the stores hold absolute paths of their images
FINISHED = ["finished", "from-tar", "deleted", "adapted"]
MORE = {"source": str(HOME / "photos" / "more"), "captions": HOME / "captions-more.tsv"}
COMMANDS = {
    "finished": {"source": str(HOME / "photos"), "captions": HOME / "captions.tsv", "precision": "fp32"},
    "unfinished": MORE | {"policy": "none"},
    "from-tar": {"source": str(HOME / "photos.tar"), "columns": "license,number"},
    "deleted": MORE,
    "adapted": MORE | {"policy": "fast", "adapter": str(HOME / "adapter")},
}


@pytest.fixture(scope="module")
def home():
    """The archive, unpacked where it was made, with the original file times."""
    shutil.rmtree(HOME, ignore_errors=True)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(HOME.parent, filter="data")
    yield HOME
    shutil.rmtree(HOME)


@pytest.fixture(scope="module")
def expected(home):
    return json.loads((home / "expected.json").read_text())


@pytest.fixture
def copy(home, tmp_path):
    """Copies a store, so that a test can write to it."""
    return lambda name: shutil.copytree(home / name, tmp_path / name)


def embed_again(name, store):
    return embed(EmbedSettings(out=store, workers=1, **COMMANDS[name]))


@pytest.mark.parametrize("name", [*FINISHED, "unfinished"])
def test_records_and_fingerprints_are_read(home, expected, name):
    view = StoreView.open(home / name, partial=True)
    record, found = view.record, expected[name]
    assert (record.fingerprint, record.encoder.fingerprint) == (found["fingerprint"],) * 2
    assert (record.text_space, record.encoder.text_space) == (found["text_space"],) * 2
    assert (record.image_space, record.encoder.image_space) == (found["image_policy"],) * 2
    assert [shard.shard_id for shard in record.shards] == found["shard_ids"]
    assert view.deleted.tolist() == found["tombstones"]
    written = json.loads((home / name / "run.json").read_text())
    assert {**record.model_dump(mode="json"), "seal": written["seal"]} == written


@pytest.mark.parametrize("name", FINISHED)
def test_stores_are_whole_and_give_the_same_hits(home, expected, name):
    report = verify(VerifySettings(store=home / name))
    assert (report.findings, report.num_whole) == ([], len(expected[name]["shard_ids"]))
    searcher = Searcher.open(home / name)
    hits = searcher.search("a large red star in the center", 5)
    assert hits.num_images == len(searcher) >= len(hits)
    wanted = expected[name]["hits"]
    assert [[hit.id, hit.key] for hit in hits] == [[number, key] for number, key, _ in wanted]
    assert [hit.score for hit in hits] == pytest.approx([score for _, _, score in wanted], abs=1e-4)


def test_images_give_the_same_embeddings(home):
    resample = verify(VerifySettings(store=home / "finished", resample=20)).resample
    assert (resample.num_compared, resample.changed, resample.findings) == (20, [], [])


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("name", FINISHED)
def test_nothing_is_embedded_again(copy, expected, name):
    report = embed_again(name, copy(name))
    assert (report.num_embedded, report.record.fingerprint) == (0, expected[name]["fingerprint"])
    assert len(report.record.plans) == 1


@pytest.mark.usefixtures("ray_session")
def test_an_unfinished_store_is_finished(copy):
    store = copy("unfinished")
    [finding] = verify(VerifySettings(store=store)).findings
    assert "1 of 3 shards are not embedded" in finding
    before = {path: path.read_bytes() for path in store.glob("embeddings/*")}
    report = embed_again("unfinished", store)
    assert (report.num_embedded, report.num_images, report.num_ok) == (3, 7, 7)
    assert {path: path.read_bytes() for path in before} == before
    assert verify(VerifySettings(store=store)).findings == []


def test_deleted_rows_are_removed_and_the_index_is_rebuilt(copy):
    store = copy("deleted")
    assert compact(CompactSettings(store=store)).num_rows == 2
    assert build_index(IndexSettings(store=store)).num_vectors == 5
    assert verify(VerifySettings(store=store)).findings == []


def test_the_adapter_is_read(home, expected):
    assert read_adapter(str(home / "adapter")).sha256 == expected["adapter"]["sha256"]


@pytest.mark.train
def test_an_unfinished_training_is_finished(copy):
    folder = copy("half-trained")
    command = [
        *("adapt", "--data", HOME / "photos", "--label-free", "--policy", "fast", "--targets", "q", "--rank", "1"),
        *("--factors", "singular", "--steps", "12", "--costs", "1,2", "--batch-size", "8", "--evaluate-every", "4"),
        *("--precision", "fp32", "--device", "cpu", "--out", folder),
    ]
    # on one core, as it was started: the order of summation depends on it
    program = "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    program += "from query.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "step 4:" not in done.stderr  # it was done before the kill
    assert [f"step {step}:" in done.stderr for step in (8, 12)] == [True, True]
    assert [entry["step"] for entry in json.loads((folder / "adapter.json").read_text())["log"]] == [4, 8, 12]
    assert not (folder / "training").exists()
