"""Towers of every family by 8-bit products, small and with random weights."""

import copy
import gc
import pickle
from functools import cache

import pytest
import torch
from open_clip.timm_model import TimmModel

from pipeline.errors import InputError
from pipeline.model.pruning.attach import attach
from pipeline.model.pruning.policy import PruningPolicy, named_policy
from pipeline.model.quantization import blocks, shared
from pipeline.model.quantization.blocks import Int8Block
from pipeline.model.quantization.coverage import coverage_of
from pipeline.model.quantization.tower import TowerObserver, attach_int8
from pipeline.model.towers import onednn
from pipeline.model.towers.families import blocks_of, unprunable_reason
from tests.kit.families import FAMILIES, UNPRUNABLE, features_of, own, with_weights

NORM_FORMER = {"block_type": "custom", "qk_norm": True, "scale_attn": True, "scale_fc": True, "scale_heads": True}
PRUNABLE = {
    **FAMILIES,
    "open_clip, norms inside": lambda: own(**NORM_FORMER, scale_attn_inner=True),
    "SigLIP 2": lambda: TimmModel("small_siglip2", 32, 32, pool="map", proj="none"),
}
ALL = {**PRUNABLE, **UNPRUNABLE}
SIZE = (32, 32)
CUTS = {"kind": "stages", "cuts": [{"depth": 0.25, "keep": 0.6}, {"depth": 0.5, "keep": 0.4}]}


def policy(**parts):
    # places that do not depend on the image, so that 8 bits and float keep the same tokens
    return PruningPolicy(**{"name": "p", "schedule": CUTS, "score": "grid", **parts})


POLICIES = {
    "lossless": named_policy("lossless"),
    "balanced": named_policy("balanced").model_copy(update={"score": "grid"}),
    "fast": named_policy("fast").model_copy(update={"score": "grid"}),
    "reference": named_policy("reference").model_copy(update={"score": "grid"}),
    "bypass": policy(schedule={"kind": "bypass", "start": 0.25, "keep": 0.5}, reduce="drop"),
    "sizes": policy(reduce="merge", size_weight=1.0, class_token_last=False),
    "bipartite": policy(reduce="bipartite", size_weight=1.0),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def images(number, seed):
    return torch.randn(number, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


@cache
def calibrated(name):
    """A tower with its coverage and the ranges of its inputs. Tests leave the tower as it is."""
    torch.manual_seed(5)
    tower = with_weights(ALL[name]().eval(), 0.7)
    for convolution in (module for module in tower.modules() if isinstance(module, torch.nn.Conv2d)):
        convolution.weight.mul_(0.1)  # tokens of patches about as large as the class token
    onednn.use(tower, "torch")
    coverage = coverage_of(tower, SIZE)
    with torch.no_grad():
        observer = TowerObserver(tower, None, coverage)
        tower(images(16, 4))
        ranges = observer.ranges()
        observer.detach()
    return tower, coverage, ranges


@torch.no_grad()
def int8_features(name, chosen, pixels, tower=None):
    own_tower, coverage, ranges = calibrated(name)
    detach = attach_int8(tower or own_tower, chosen, coverage, ranges)
    try:
        return features_of(tower or own_tower, pixels)
    finally:
        detach()


@torch.no_grad()
def float_features(name, chosen, pixels):
    tower, _, _ = calibrated(name)
    detach = attach(tower, chosen)
    try:
        return features_of(tower, pixels)
    finally:
        detach()


def least_cosine(one, other):
    return torch.cosine_similarity(one.float(), other.float()).min()


@pytest.mark.parametrize("name", ALL)
def test_8_bits_are_close_to_float(name):
    got, right = int8_features(name, None, images(6, 3)), float_features(name, None, images(6, 3))
    assert least_cosine(got, right) > 0.995
    assert not torch.allclose(got, right, rtol=1e-4, atol=1e-5)  # it did round


@pytest.mark.parametrize("name", PRUNABLE)
def test_8_bits_are_close_to_float_under_every_kind_of_policy(name):
    pixels = images(6, 3)
    cosines = {
        of: least_cosine(int8_features(name, chosen, pixels), float_features(name, chosen, pixels))
        for of, chosen in POLICIES.items()
    }
    assert {of: cosine for of, cosine in cosines.items() if cosine <= 0.99} == {}


@pytest.mark.parametrize("name", ALL)
def test_detaching_restores_the_float_tower_to_the_bit(name):
    tower, coverage, ranges = calibrated(name)
    before = float_features(name, None, images(2, 3))
    names = {id(module): set(vars(module)) for module in tower.modules()}
    detach = attach_int8(tower, None, coverage, ranges)
    copied = copy.deepcopy(tower)
    detach()
    detach()
    assert {id(module): set(vars(module)) for module in tower.modules()} == names
    assert torch.equal(float_features(name, None, images(2, 3)), before)
    with torch.no_grad():
        assert torch.equal(features_of(pickle.loads(pickle.dumps(tower)), images(2, 3)), before)
        assert torch.isfinite(features_of(copied, images(2, 3))).all()


@pytest.mark.parametrize("name", ALL)
def test_batches_and_threads_move_last_bits_only(name, float_sums_vary):
    """Sums of 8-bit products are exact. What stays in float is summed in another order."""
    pixels = images(5, 3)
    together = int8_features(name, None, pixels)
    apart = torch.cat([int8_features(name, None, part) for part in pixels.split(2)])
    assert least_cosine(apart, together) > 1 - 1e-4
    torch.set_num_threads(2)
    on_two = int8_features(name, None, pixels)
    assert least_cosine(on_two, together) > 1 - 1e-4
    assert float_sums_vary or torch.equal(on_two, together)


@pytest.mark.parametrize("name", PRUNABLE)
def test_blocks_give_the_same_for_few_images_at_a_time(name, monkeypatch):
    pixels = images(5, 3)
    whole = int8_features(name, POLICIES["sizes"], pixels)
    monkeypatch.setattr(blocks, "CACHED_BYTES", 1)
    assert least_cosine(int8_features(name, POLICIES["sizes"], pixels), whole) > 1 - 1e-4


@pytest.mark.skipif(not onednn.computes_bf16(), reason="this CPU does not compute bf16")
@pytest.mark.parametrize("name", ["open_clip", "Perception Encoder", "EVA02", "SigLIP"])
def test_attention_in_bf16_is_close_to_float(name):
    tower = copy.deepcopy(calibrated(name)[0])
    onednn.use(tower, "onednn")
    for chosen in (None, POLICIES["sizes"]):
        got = int8_features(name, chosen, images(6, 3), tower)
        assert least_cosine(got, float_features(name, chosen, images(6, 3))) > 0.99


@pytest.mark.parametrize("name", ["open_clip", "EVA02", "Swin"])
def test_towers_that_share_weights_share_rounded_ones(name, monkeypatch):
    tower, coverage, ranges = calibrated(name)
    same = {id(tensor): tensor for tensor in (*tower.parameters(), *tower.buffers())}
    twins = [copy.deepcopy(tower, dict(same)) for _ in range(2)]
    first = attach_int8(twins[0], None, coverage, ranges)
    with torch.no_grad():
        right = features_of(twins[0], images(2, 3))
    monkeypatch.setattr(
        "pipeline.model.quantization.products.Int8Linear.__init__", lambda *_: pytest.fail("rounded again")
    )
    second = attach_int8(twins[1], None, coverage, ranges)
    with torch.no_grad():
        assert torch.equal(features_of(twins[1], images(2, 3)), right)
        first()
        assert torch.equal(features_of(twins[1], images(2, 3)), right)
        assert torch.equal(features_of(twins[0], images(2, 3)), float_features(name, None, images(2, 3)))
    second()


def test_weights_that_changed_are_rounded_again():
    torch.manual_seed(5)
    tower = with_weights(own().eval(), 0.7)
    coverage = coverage_of(tower, SIZE)
    with torch.no_grad():
        observer = TowerObserver(tower, None, coverage)
        features_of(tower, images(8, 4))
        ranges = observer.ranges()
        observer.detach()
        results = []
        for _ in range(2):
            detach = attach_int8(tower, None, coverage, ranges)
            results.append(features_of(tower, images(2, 3)))
            detach()
            tower.transformer.resblocks[1].mlp.c_fc.weight.mul_(0.5)
    assert not torch.equal(*results)


SENTENCES = {
    "open_clip": "16 of 16 linear layers of the blocks and the patch embedding in 8 bits; the projection in float",
    "SigLIP": "16 of 16 linear layers of the blocks and the patch embedding in 8 bits; the attention pool in float",
    "EVA02": "20 of 20 linear layers of the blocks and the patch embedding in 8 bits; the projection in float",
    "Swin": "17 of 18 linear layers in 8 bits; 1 convolution and trunk.head.fc in float",
    "ConvNeXt": "6 of 9 linear layers in 8 bits; 9 convolutions, trunk.stages.3.blocks.0.mlp.fc1, "
    "trunk.stages.3.blocks.0.mlp.fc2 and trunk.head.fc in float",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_runs_in_float_is_said(name):
    _, coverage, ranges = calibrated(name)
    assert str(coverage) == SENTENCES[name]
    assert len(ranges) == coverage.num_int8


@pytest.mark.parametrize("name", ALL)
def test_every_plain_block_runs_whole(name):
    tower = calibrated(name)[0]
    view = blocks_of(tower)
    is_whole = bool(view) and all(view.parts(block) for block in view.blocks)
    layerwise = ["EVA02", "EVA02, post-norm", "open_clip, norms inside", "open_clip, query-key norms"]
    assert is_whole == (name not in [*layerwise, "ConvNeXt", "Swin"])
    assert (unprunable_reason(tower) is None) == (name in PRUNABLE)


def test_a_notable_share_in_float_is_a_warning():
    coverage = coverage_of(own(), SIZE)
    # by hand: 17 tokens, 12 x 32 x 32 weights in each of 4 blocks; 16 patches, 3 x 8 x 8 x 32; 32 x 16
    int8, rest = 17 * 12 * 32 * 32 * 4 + 16 * 3 * 8 * 8 * 32, 32 * 16
    assert coverage.float_share == pytest.approx(rest / (int8 + rest))
    assert coverage.warning is None
    found = coverage_of(ALL["ConvNeXt"](), SIZE)
    assert found.float_share > 0.1
    assert found.warning == (
        f"int8: {found.float_share:.0%} of the image tower's multiply-adds stay in float (9 convolutions, "
        "trunk.stages.3.blocks.0.mlp.fc1, trunk.stages.3.blocks.0.mlp.fc2 and trunk.head.fc), so 8 bits gain less; "
        "compare with --precision auto"
    )


def test_a_tower_without_linear_layers_is_refused():
    with pytest.raises(InputError, match="the image tower, a ResNet, has no linear layer that 8-bit products can"):
        coverage_of(TimmModel("resnet18", 16, 32, pool="avg", proj=None), SIZE)


def test_a_block_holds_its_packed_weights_only_while_it_is_used():
    tower, coverage, ranges = calibrated("open_clip")
    detach = attach_int8(tower, None, coverage, ranges)
    assert any(isinstance(one, Int8Block) for one in shared._made.values())
    detach()
    del detach
    gc.collect()
    assert not any(isinstance(one, Int8Block) for one in shared._made.values())
