"""How close int8 is to float is measured where it is calibrated, and blocks stay in float until it is close enough."""

import numpy as np
import pytest

from pipeline.model.calibrate import calibrated
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import named_policy
from pipeline.model.quantization.calibration import unpack_calibration
from pipeline.model.spec import ModelSource


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load_model(ModelSource(model=tiny_model), "int8", "cpu")


@pytest.fixture(scope="module")
def pixels(loaded):
    side = loaded.spec.preprocess.height
    return np.random.default_rng(0).integers(0, 256, (40, side, side, 3), dtype=np.uint8)


def cosines(tiny_model, found, policy, pixels):
    whole = Encoder(load_model(ModelSource(model=tiny_model), "fp32", "cpu"), policy).encode(pixels)
    return (Encoder(sharing_weights(found), policy).encode(pixels) * whole).sum(axis=1)


@pytest.mark.parametrize("name", [None, "fast"])
def test_the_cosine_to_float_is_measured(loaded, tiny_model, pixels, name):
    policy = named_policy(name) if name else None
    found = calibrated(loaded, policy, [pixels[:25], pixels[25:]], min_cosine=0)
    assert found.calibration.made_of.cosine == pytest.approx(
        cosines(tiny_model, found, policy, pixels).mean(), abs=1e-4
    )
    assert found.calibration.made_of.num_float_blocks == 0


def test_blocks_stay_in_float_until_it_is_close_enough(loaded, tiny_model, pixels):
    num_blocks = len(loaded.clip.visual.transformer.resblocks)
    all_int8 = calibrated(loaded, None, [pixels], min_cosine=0)
    asked = (1 + all_int8.calibration.made_of.cosine) / 2
    found = calibrated(loaded, None, [pixels], min_cosine=asked)
    made = found.calibration.made_of
    assert 0 < made.num_float_blocks <= num_blocks
    assert made.cosine >= asked
    assert {int(name.split(".")[0]) for name in found.calibration.ranges} == set(
        range(made.num_float_blocks, num_blocks)
    )
    assert found.spec.calibration != all_int8.spec.calibration
    assert cosines(tiny_model, found, None, pixels).mean() > cosines(tiny_model, all_int8, None, pixels).mean()
    coverage = Encoder(sharing_weights(found), None).coverage
    assert f"the first {made.num_float_blocks} of {num_blocks} blocks" in str(coverage)
    assert coverage.num_int8 == 4 * (num_blocks - made.num_float_blocks)


def test_a_cosine_that_cannot_be_reached_leaves_all_blocks_in_float(loaded, pixels):
    found = calibrated(loaded, None, [pixels], min_cosine=0.99999999)
    assert found.calibration.made_of.num_float_blocks == len(loaded.clip.visual.transformer.resblocks)
    assert np.isfinite(Encoder(sharing_weights(found), None).encode(pixels)).all()


def test_the_file_keeps_what_was_measured(loaded, pixels):
    calibration = calibrated(loaded, None, [pixels], min_cosine=0).calibration
    again = unpack_calibration(calibration.packed())
    assert again.made_of == calibration.made_of
    assert again.sha256 == calibration.sha256
