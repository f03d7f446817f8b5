"""FP8 towers, computed by torch's own scaled products on a CPU; `tests/model/test_gpu.py` has the tests on a GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from open_clip.transformer import VisionTransformer

from pipeline.errors import InputError
from pipeline.model import load
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import named_policy
from pipeline.model.quantization.fp8 import Fp8Linear, attach_fp8
from pipeline.model.spec import ModelSource
from pipeline.model.towers import onednn
from pipeline.model.towers.parts import Linear
from tests.kit.families import FAMILIES


@pytest.mark.parametrize("scales_inside", [True, False])
def test_a_layer_is_near_its_float_layer_whatever_the_size_of_a_row_or_channel(scales_inside):
    torch.manual_seed(0)
    weight_NK = torch.randn(48, 64) * torch.logspace(-3, 3, 48)[:, None]
    x_RK = (torch.randn(2, 20, 64) * torch.logspace(-4, 4, 20)[None, :, None]).bfloat16()
    linear = Linear(weight_NK=weight_NK, bias_N=None)
    right = x_RK.float() @ weight_NK.T
    found = Fp8Linear(linear, scales_inside)(x_RK)
    assert found.dtype == torch.bfloat16
    sizes = x_RK.float().norm(dim=-1, keepdim=True) * weight_NK.norm(dim=1)
    assert ((found.float() - right).abs() / sizes).max() < 0.03
    rows = Fp8Linear(linear, scales_inside)(x_RK, slice(16, 32))
    torch.testing.assert_close(rows, found[..., 16:32])


@pytest.mark.parametrize("policy", ["none", "balanced", "fast"])
def test_embeddings_are_near_those_of_bf16(tiny_model, policy):
    bf16 = load_model(ModelSource(model=tiny_model), "bf16", "cpu", kernels="torch")
    fp8 = replace(bf16, spec=bf16.spec.model_copy(update={"precision": "fp8"}))
    size = bf16.spec.preprocess
    pixels = np.random.default_rng(0).integers(0, 256, (8, size.height, size.width, 3), dtype=np.uint8)
    some, others = (Encoder(sharing_weights(loaded), named_policy(policy)).encode(pixels) for loaded in (bf16, fp8))
    assert not np.array_equal(some, others)
    assert (some * others).sum(axis=1).min() > 0.98


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES.keys())
@torch.no_grad()
def test_every_family_is_computed_and_restored(make):
    torch.manual_seed(5)
    tower = make().eval().bfloat16()
    onednn.use(tower, "torch")  # as on a GPU
    images = torch.randn(2, 3, 32, 32).bfloat16()
    before = tower(images)
    detach = attach_fp8(tower, named_policy("balanced").model_copy(update={"score": "cls_attn"}))
    rounded = _features(tower(images))
    assert not torch.equal(rounded, _features(before))
    detach()
    detach()
    torch.testing.assert_close(_features(tower(images)), _features(before), rtol=0, atol=0)


def test_a_tower_that_cannot_be_pruned_is_refused(resnet_model):
    bf16 = load_model(ModelSource(model=resnet_model), "bf16", "cpu", kernels="torch")
    fp8 = replace(bf16, spec=bf16.spec.model_copy(update={"precision": "fp8"}))
    with pytest.raises(InputError) as raised:
        Encoder(fp8, None)
    assert str(raised.value) == (
        "precision fp8: the blocks of this image tower cannot be computed in FP8: ModifiedResNet is not a Vision "
        "Transformer; use bf16"
    )


def test_a_tower_whose_layers_do_not_suit_is_refused():
    with pytest.raises(InputError, match="none of its layers has inputs and outputs in multiples of 16; use bf16"):
        attach_fp8(VisionTransformer(32, 8, 24, 1, 2, 4.0).bfloat16(), None)


def test_an_unsuitable_tower_is_refused_when_it_is_loaded(resnet_model, monkeypatch):
    monkeypatch.setattr(load, "precision_on", lambda device, asked: asked)  # as on a GPU
    with pytest.raises(InputError, match="cannot be computed in FP8: ModifiedResNet is not a Vision Transformer"):
        load_model(ModelSource(model=resnet_model), "fp8", "cpu")


@torch.no_grad()
def test_a_tower_is_compiled_as_a_whole():
    tower = FAMILIES["open_clip"]().eval().bfloat16()
    onednn.use(tower, "torch")  # as on a GPU
    images = torch.randn(2, 3, 32, 32).bfloat16()
    attach_fp8(tower, named_policy("balanced"))
    expected = _features(tower(images))
    compiled = torch.compile(tower, backend="eager", fullgraph=True)
    torch.testing.assert_close(_features(compiled(images)), expected)


def _features(output):
    return output[0] if isinstance(output, tuple) else output
