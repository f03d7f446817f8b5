"""Encoders in int8: calibrated on images, with policies, adapters and shared weights."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.model.adapter.files import read_adapter
from pipeline.model.calibrate import calibrated
from pipeline.model.encode import Encoder, fastest_encoder, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import PruningPolicy, named_policy
from pipeline.model.spec import ModelSource
from tests.kit import adapters

FAST = named_policy("fast")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pixels(make_image):
    return np.stack([np.asarray(make_image(32, 32, seed)) for seed in range(24)])


@pytest.fixture(scope="module")
def loaded(tiny_model, pixels):
    """The tiny model in int8, calibrated."""
    return calibrated(load_model(ModelSource(model=tiny_model), "int8", "cpu"), None, [pixels[:8], pixels[8:16]])


@pytest.fixture(scope="module")
def in_float(tiny_model):
    return load_model(ModelSource(model=tiny_model), "fp32", "cpu")


@pytest.mark.parametrize("encoder_of", [Encoder, fastest_encoder])
@pytest.mark.parametrize("policy", [None, "lossless", "balanced", "fast", "reference"])
def test_embeddings_are_close_to_those_in_float(loaded, in_float, pixels, encoder_of, policy):
    policy = policy and named_policy(policy)
    right = encoder_of(sharing_weights(in_float), policy).encode(pixels[16:])
    encoder = encoder_of(sharing_weights(loaded), policy)
    got = encoder.encode(pixels[16:])
    assert (got * right).sum(axis=1).min() > 0.99
    assert not np.allclose(got, right, atol=1e-4)
    assert encoder.spec.precision == "int8"
    assert encoder.spec.calibration == loaded.calibration.sha256
    assert (encoder.coverage.num_int8, encoder.coverage.num_linear) == (16, 16)
    assert encoder.gmacs == encoder_of(sharing_weights(in_float), policy).gmacs


def test_only_int8_has_a_coverage(in_float):
    assert Encoder(sharing_weights(in_float), None).coverage is None


def test_a_merged_adapter_equals_calibrating_the_merged_weights(tiny_model, tmp_path, pixels):
    folder = adapters.write(tmp_path / "adapter", tiny_model)
    adapted = calibrated(load_model(ModelSource(model=tiny_model, adapter=folder), "int8", "cpu"), FAST, [pixels])
    plain = load_model(ModelSource(model=tiny_model), "int8", "cpu")
    adapter = read_adapter(folder)
    adapter.merge_into(plain.clip, plain.spec.weights_sha256)
    merged = calibrated(replace(plain, summary_offsets_LD=adapter.summary_offsets_LD), FAST, [pixels])
    assert merged.calibration.sha256 == adapted.calibration.sha256
    results = [Encoder(one, FAST).encode(pixels) for one in (merged, adapted)]
    np.testing.assert_array_equal(*results)
    unadapted = calibrated(load_model(ModelSource(model=tiny_model), "int8", "cpu"), FAST, [pixels])
    assert unadapted.calibration.sha256 != adapted.calibration.sha256


def test_encoders_that_share_weights_do_not_disturb_each_other(loaded, in_float, pixels):
    alone = {name: Encoder(sharing_weights(loaded), named_policy(name)).encode(pixels) for name in ("fast", "balanced")}
    fast, balanced, unpruned = (
        Encoder(sharing_weights(loaded), policy) for policy in (FAST, named_policy("balanced"), None)
    )
    for _ in range(2):
        unpruned.encode(pixels)
        np.testing.assert_array_equal(fast.encode(pixels), alone["fast"])
        np.testing.assert_array_equal(balanced.encode(pixels), alone["balanced"])
    fast.detach()
    right = Encoder(sharing_weights(in_float), None).encode(pixels)
    np.testing.assert_array_equal(balanced.encode(pixels), alone["balanced"])
    np.testing.assert_allclose(Encoder(replace(loaded, spec=in_float.spec), None).encode(pixels), right, atol=1e-6)


def test_the_original_is_unchanged_by_calibration(tiny_model, in_float, pixels):
    model = load_model(ModelSource(model=tiny_model), "int8", "cpu")
    before = {name: set(vars(module)) for name, module in model.clip.named_modules()}
    calibrated(model, FAST, [pixels])
    assert {name: set(vars(module)) for name, module in model.clip.named_modules()} == before
    assert all(torch.equal(*pair) for pair in zip(model.clip.parameters(), in_float.clip.parameters(), strict=True))


def test_cuts_can_be_watched(loaded, pixels):
    cut = PruningPolicy(name="p", schedule={"kind": "stages", "cuts": [{"depth": 0.5, "keep": 0.25}]}, score="grid")
    seen = []
    Encoder(sharing_weights(loaded), cut, lambda number, kept: seen.append((number, kept.shape))).encode(pixels[:2])
    assert seen == [(2, (2, 4))]


def test_an_encoder_can_be_copied(loaded, pixels):
    encoder = Encoder(sharing_weights(loaded), FAST)
    np.testing.assert_array_equal(copy.deepcopy(encoder).encode(pixels), encoder.encode(pixels))


def test_a_tower_without_linear_layers_is_refused_when_it_is_loaded(resnet_model):
    with pytest.raises(InputError) as raised:
        load_model(ModelSource(model=resnet_model), "int8", "cpu")
    assert str(raised.value) == (
        "precision int8: the image tower, a ModifiedResNet, has no linear layer that 8-bit products can compute; use "
        "--precision auto"
    )


def test_the_reference_model_gives_the_same_in_every_batch_and_on_any_number_of_threads(
    shared, make_image, float_sums_vary
):
    model = load_model(ModelSource(model=f"local-dir:{shared}/models/lit-vit-ti-16"), "int8", "cpu")
    images = np.stack([np.asarray(make_image(224, 224, seed)) for seed in range(5)])
    encoder = fastest_encoder(calibrated(model, None, [images]), FAST)
    one = encoder.encode(images)
    apart = np.concatenate([encoder.encode(images[:2]), encoder.encode(images[2:])])
    torch.set_num_threads(2)
    two = encoder.encode(images)
    assert encoder.coverage.warning is None
    assert (apart * one).sum(axis=1).min() > 0.999
    assert (two * one).sum(axis=1).min() > 0.999
    assert float_sums_vary or np.array_equal(two, one)
