"""The calibration of a store in int8: what needs it finds it, and says how to put it back if it is gone."""

import shutil

import numpy as np
import pytest

from pipeline.errors import FingerprintMismatch, StoreError
from pipeline.model.load import load_model
from pipeline.model.quantization.calibration import read_calibration
from pipeline.model.spec import ModelSource
from pipeline.store import layout
from pipeline.store.layout import Store
from pipeline.store.parts import embeddings_of
from pipeline.store.view import StoreView
from query.image import encode_image, image_encoder
from tests.kit.damage import check
from tests.kit.jobs import Killed, die
from tests.kit.plain_embed import embed_plainly

pytestmark = pytest.mark.usefixtures("keep_threads")


@pytest.fixture(scope="session", params=["balanced", "none"])
def in_int8(request, tmp_path_factory, photos, tiny_model):
    """A store in int8. Read-only: use `store` to change it."""
    root = tmp_path_factory.mktemp("int8") / "store"
    return embed_plainly(photos, root, tiny_model, precision="int8", policy=request.param)


@pytest.fixture
def store(in_int8, tmp_path):
    return Store(shutil.copytree(in_int8.root, tmp_path / "store"))


def other_calibration(store):
    found = read_calibration(store.calibration_path)
    name, one = next(iter(found.ranges.items()))
    changed = type(one)(**{**{slot: getattr(one, slot) for slot in one.__slots__}, "scale": one.scale * 2})
    return type(found)(ranges={**found.ranges, name: changed}, made_of=found.made_of).packed()


def test_the_encoder_names_it_by_its_hash(in_int8, tiny_model):
    record = in_int8.read_record()
    assert record.encoder.calibration == read_calibration(in_int8.calibration_path).sha256
    in_float = load_model(ModelSource(model=tiny_model), "fp32", "cpu").spec
    assert record.encoder.text_space == in_float.text_space
    assert record.encoder.image_space != in_float.image_space


def test_all_rows_embedded_again_are_equal(in_int8):
    report = check(in_int8, resample=100)
    assert report.findings == []
    assert (report.resample.num_compared, report.resample.num_equal) == (12, 12)


def test_images_of_queries_have_the_vectors_of_the_store(in_int8, photos):
    view = StoreView.open(in_int8.root)
    stored = {}
    for _, table in view.parts(["id", "key", "status", "embedding"]):
        stored |= dict(zip(table["key"].to_pylist(), embeddings_of(table)[1], strict=True))
    encoder = image_encoder(view.record.encoder, calibration=in_int8.calibration_path)
    matrix = np.stack(list(stored.values()))
    for number, (key, vector) in enumerate(stored.items()):
        found = encode_image(encoder, photos / key)
        assert (matrix @ found).argmax() == number
        assert found @ vector > 0.999


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda store: None, "is missing"),
        (lambda store: b"torn", "is damaged ("),
        (other_calibration, "has the hash "),
    ],
    ids=["missing", "damaged", "another"],
)
def test_a_missing_or_changed_file_is_refused_in_one_line(store, spoil, what):
    data = spoil(store)
    store.calibration_path.unlink()
    if data:
        store.calibration_path.write_bytes(data)
    expected = f"{store.calibration_path} {what}"
    advice = "; restore it from a backup, or run the same embed command with --calibration and a copy of it from anot"
    [finding] = check(store).findings
    assert finding.startswith(expected)
    assert advice in finding
    encoder = store.read_record().encoder
    for use in (lambda: check(store, resample=1), lambda: image_encoder(encoder, calibration=store.calibration_path)):
        with pytest.raises(StoreError) as raised:
            use()
        assert str(raised.value) == finding
        assert "\n" not in finding


def test_a_store_in_float_needs_none(store, photos, tiny_model, tmp_path):
    in_float = embed_plainly(photos, tmp_path / "float", tiny_model)
    assert not in_float.calibration_path.exists()
    assert check(in_float).findings == []
    spec = in_float.read_record().encoder
    assert image_encoder(spec, calibration=in_float.calibration_path).spec == spec
    with pytest.raises(FingerprintMismatch, match=r"int8.*but this run would use .*fp32"):
        embed_plainly(photos, store.root, tiny_model)


def test_it_is_written_before_the_record_and_a_killed_run_may_leave_it(in_int8, tmp_path, monkeypatch):
    record, data = in_int8.read_record(), in_int8.calibration_path.read_bytes()
    store = Store(tmp_path / "store")
    store.create_folders()
    with monkeypatch.context() as patch:
        patch.setattr(layout, "write_sealed_json", die)
        with pytest.raises(Killed):
            store.begin(record, b"of the killed run")
    assert store.calibration_path.read_bytes() == b"of the killed run"
    assert not store.record_path.exists()
    store.create_folders()  # what was left is not taken for a stranger's
    store.begin(record, data)
    assert store.calibration_path.read_bytes() == data
    left = Store(tmp_path / "left")
    left.create_folders()
    left.calibration_path.write_bytes(b"of the killed run")
    left.remove_if_empty()
    assert not left.root.exists()
