"""Ranges found from images: they span what was seen, and bad images give finite ones."""

import math

import numpy as np
import pytest
import torch

from pipeline.model.calibrate import calibrated
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import named_policy
from pipeline.model.quantization.observe import NUM_OUTLIERS, Input, best_range, without_outliers
from pipeline.model.spec import ModelSource
from pipeline.model.towers.parts import Linear


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(ModelSource(model=tiny_model), "int8", "cpu")


@pytest.fixture(scope="module")
def pixels():
    """40 smooth images that differ."""
    coarse = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    smooth = torch.nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1)
    return (smooth * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def seen_of(x_BTK):
    seen = Input(max_rows=1024)
    seen.see(x_BTK)
    return seen


def same(first, second):
    return first.keys() == second.keys() and all(
        (first[name].scale, first[name].zero_point) == (second[name].scale, second[name].zero_point)
        and all(
            torch.equal(*both) if both[0] is not None else both[1] is None
            for both in (
                (first[name].smooth_K, second[name].smooth_K),
                (first[name].outliers_M, second[name].outliers_M),
            )
        )
        for name in first
    )


def bounds(found):
    return (0 - found.zero_point) * found.scale, (255 - found.zero_point) * found.scale


def test_a_range_by_hand():
    seen = seen_of(torch.tensor([[[-1.0, 0.0], [0.0, 3.0]]]))
    found = best_range(seen, Linear(weight_NK=torch.eye(2), bias_N=None))
    if found.smooth_K is None:
        assert 4 / 255 <= found.scale <= 4 / 255 * 2 ** (1 / 64)
    assert math.log2(found.scale) * 64 == pytest.approx(round(math.log2(found.scale) * 64))


def test_a_range_spans_one_rare_large_number():
    x_BTK = torch.randn(64, 50, 16, generator=torch.Generator().manual_seed(1))
    x_BTK[63, 1, 7] = 30.0  # in no kept row
    seen = seen_of(x_BTK)
    assert seen.rows_RK.max() < 30
    found = best_range(seen, Linear(weight_NK=torch.eye(16), bias_N=None))
    smooth = 1.0 if found.smooth_K is None else found.smooth_K[7].item()
    assert 30 / smooth <= bounds(found)[1] + found.scale


def test_large_channels_are_smoothed_into_the_weights():
    x_BTK = torch.randn(4, 50, 16, generator=torch.Generator().manual_seed(1))
    x_BTK[..., 3] *= 100
    generator = torch.Generator().manual_seed(2)
    weight_NK = torch.randn(8, 16, generator=generator)
    weight_NK[:, 3] /= 100
    found = best_range(seen_of(x_BTK), Linear(weight_NK=weight_NK, bias_N=None))
    assert found.smooth_K.argmax() == 3
    assert found.smooth_K[3] > 20 * found.smooth_K.median()


def test_the_largest_channels_of_a_gelu_are_left_out():
    x_BTK = torch.nn.functional.gelu(torch.randn(4, 50, 64, generator=torch.Generator().manual_seed(1)))
    x_BTK[0, 0, [9, 40]] = 200.0
    found = without_outliers(seen_of(x_BTK))
    assert len(found.outliers_M) == NUM_OUTLIERS
    assert {9, 40} <= set(found.outliers_M.tolist())
    assert found.outliers_M.tolist() == sorted(found.outliers_M.tolist())
    assert bounds(found)[1] < 10


def test_ranges_do_not_depend_on_batches(model, pixels):
    by_batches = [
        calibrated(model, None, [pixels[start : start + size] for start in range(0, 40, size)]).calibration
        for size in (40, 8, 7)
    ]
    assert all(same(by_batches[0].ranges, other.ranges) for other in by_batches[1:])
    assert len({calibration.sha256 for calibration in by_batches}) == 1


def test_other_images_give_other_ranges(model, pixels):
    first, second = (calibrated(model, None, [part]).calibration for part in (pixels[:20], pixels[20:]))
    assert not same(first.ranges, second.ranges)


@pytest.mark.parametrize("policy", [None, "balanced", "fast"])
def test_embeddings_are_near_those_in_float(tiny_model, model, pixels, policy):
    policy = named_policy(policy) if policy else None
    given = Encoder(sharing_weights(calibrated(model, policy, [pixels[:32]])), policy).encode(pixels)
    right = Encoder(load_model(ModelSource(model=tiny_model), "fp32", "cpu"), policy).encode(pixels)
    cosines = (given * right).sum(axis=1)
    assert 0.985 < cosines.mean() < 1


@pytest.mark.parametrize(
    "bad", [np.zeros((1, 32, 32, 3), np.uint8), np.full((5, 32, 32, 3), 255, np.uint8)], ids=["one", "blank"]
)
def test_bad_images_give_finite_embeddings(model, pixels, bad):
    found = calibrated(model, None, [bad])
    assert all(math.isfinite(each.scale) and each.scale > 0 for each in found.calibration.ranges.values())
    assert all(0 <= each.zero_point <= 255 for each in found.calibration.ranges.values())
    assert np.isfinite(Encoder(sharing_weights(found), None).encode(pixels)).all()
