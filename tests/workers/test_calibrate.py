"""What a worker does to calibrate, without Ray."""

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError, FingerprintMismatch, InputError
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import named_policy
from pipeline.model.spec import ModelSource
from pipeline.pixels.decode import decode_batch
from pipeline.source.sample import choose_sample
from pipeline.workers.calibrate import measured, other_policy, with_known
from pipeline.workers.messages import KnownCalibration
from tests.kit.sources import listed

POLICY = named_policy("balanced")


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load_model(ModelSource(model=tiny_model), "int8", "cpu")


def calibrate(loaded, folder):
    def decode(batches):
        return (decode_batch(batch, loaded.spec.preprocess) for batch in batches)

    return measured(loaded, POLICY, choose_sample(listed(folder)), decode)


def with_photos(folder, make_image, numbers):
    folder.mkdir()
    for number in numbers:
        make_image(40, 50, number).save(folder / f"{number:02d}.png")
    return folder


def test_images_that_fail_do_not_count(loaded, tmp_path, make_image):
    good = with_photos(tmp_path / "good", make_image, range(40))
    whole, calibrating = calibrate(loaded, good)
    assert (calibrating.num_images, calibrating.warning) == (40, None)
    assert calibrating.describe().startswith("40 images, ")
    assert whole.spec.calibration == whole.calibration.sha256
    assert whole.calibration.made_of.num_images == 40
    assert whole.calibration.made_of.policy == "balanced"
    for number in range(9):
        (good / f"broken-{number}.jpg").write_text("no image")
    again, calibrating = calibrate(loaded, good)
    assert calibrating.num_images == 40
    assert again.calibration.packed() == whole.calibration.packed()


def test_other_images_give_other_ranges(loaded, tmp_path, make_image):
    one, _ = calibrate(loaded, with_photos(tmp_path / "a", make_image, range(20)))
    other, _ = calibrate(loaded, with_photos(tmp_path / "b", make_image, range(20, 40)))
    assert one.spec.image_space != other.spec.image_space
    assert one.spec.text_space == other.spec.text_space


def test_few_images_are_a_warning_and_none_is_an_error(loaded, tmp_path, make_image):
    _, calibrating = calibrate(loaded, with_photos(tmp_path / "one", make_image, [1]))
    assert calibrating.warning.startswith("int8 was calibrated on 1 different images (of 1;")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.jpg").write_text("no image")
    with pytest.raises(InputError) as raised:
        calibrate(loaded, bad)
    assert str(raised.value) == (
        f"int8 is calibrated on images of the source, but in {bad} none of 1 sampled images can be decoded (first "
        "'a.jpg' is undecodable: not an image (8 bytes)); correct the source, or give --calibration, or another "
        "--precision"
    )


def test_blank_images_give_a_finite_calibration_and_a_warning(loaded, tmp_path):
    folder = tmp_path / "blank"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (40, 40)).save(folder / f"{number}.png")
    blank, calibrating = calibrate(loaded, folder)
    assert "0 different images (of 20;" in calibrating.warning
    assert all(np.isfinite(found.scale) and found.scale > 0 for found in blank.calibration.ranges.values())


def test_ranges_of_another_policy_are_used_and_mentioned(loaded, tmp_path, make_image):
    whole, _ = calibrate(loaded, with_photos(tmp_path / "photos", make_image, range(20)))
    assert other_policy(whole, named_policy("balanced")) is None
    assert "under policy balanced, so min_cosine was not checked for policy fast" in other_policy(
        whole, named_policy("fast")
    )
    assert "for policy none; `clipsieve evaluate --precisions`" in other_policy(whole, None)
    assert other_policy(loaded, None) is None


def test_ranges_of_another_tower_are_refused(loaded, tiny_model, tmp_path, make_image):
    whole, _ = calibrate(loaded, with_photos(tmp_path / "photos", make_image, range(20)))
    data = whole.calibration.packed()
    assert with_known(loaded, KnownCalibration(data=data)).spec == whole.spec
    larger = load_model(ModelSource(model=tiny_model, image_size=48), "int8", "cpu")
    with pytest.raises(InputError, match=r"calibration c: it is of a tower with the input height 32 .* has 48 .*; "):
        with_known(larger, KnownCalibration(data=data, path="c"))
    with pytest.raises(FingerprintMismatch, match=r"height 32 .*; choose another --out, or the same model, ad"):
        with_known(larger, KnownCalibration(data=data, path="c", is_of_store=True))
    in_float = load_model(ModelSource(model=tiny_model), "fp32", "cpu")
    with pytest.raises(ConfigError, match="only int8 uses a calibration, but this run computes in fp32"):
        with_known(in_float, KnownCalibration(data=data, path="c"))
