"""The formula for multiply-adds against torch's own counter."""

import open_clip
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.model.flops import gmacs_per_image, tokens_per_block
from pipeline.model.load import load_model
from pipeline.model.prune import attach
from pipeline.policy import PruningPolicy
from pipeline.spec import ModelSource

POLICIES = [
    None,
    PruningPolicy(name="reference"),
    PruningPolicy(name="reference", depth=0.0, keep_ratio=0.3),
    PruningPolicy(name="reference", keep_ratio=1.0),
]


def counted_gmacs(tower, policy, size, device):
    detach = attach(tower, policy)
    # the counter sees neither the fused multi-head kernel nor, in older versions of torch, the CPU's fused attention
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            tower(torch.zeros(1, 3, size, size, device=device))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
        detach()
    return counter.get_total_flops() / 2 / 1e9


@pytest.mark.parametrize("policy", POLICIES, ids=["none", "default", "block-0", "keep-all"])
def test_formula_equals_the_counter_on_the_tiny_tower(tiny_model, policy):
    tower = load_model(ModelSource(model=tiny_model), "fp32", "cpu").clip.visual
    counted = counted_gmacs(tower, policy, 32, "cpu")
    assert gmacs_per_image(tower, policy, (32, 32)) == pytest.approx(counted, rel=1e-9)


@pytest.fixture(scope="module")
def vit_b_16():
    with torch.device("meta"):  # shapes without weights: counting needs no numbers
        return open_clip.create_model("ViT-B-16", load_weights=False, device="meta").visual.eval()


@pytest.mark.parametrize("policy", POLICIES, ids=["none", "default", "block-0", "keep-all"])
def test_formula_equals_the_counter_on_vit_b_16(vit_b_16, policy):
    counted = counted_gmacs(vit_b_16, policy, 224, "meta")
    assert gmacs_per_image(vit_b_16, policy, (224, 224)) == pytest.approx(counted, rel=1e-9)


def test_vit_b_16_costs_what_is_published(vit_b_16):
    # the published figure of ImageNet's ViT-B/16 at 224; a classifier and CLIP's projection weigh next to nothing
    assert gmacs_per_image(vit_b_16, None, (224, 224)) == pytest.approx(17.58, abs=0.02)


def test_tower_without_a_formula_is_counted():
    tower = open_clip.modified_resnet.ModifiedResNet([1, 1, 1, 1], output_dim=16, heads=2, image_size=32, width=8)
    gmacs = gmacs_per_image(tower.eval(), None, (32, 32))
    assert gmacs == pytest.approx(counted_gmacs(tower, None, 32, "cpu"), rel=1e-9)
    assert torch.backends.mha.get_fastpath_enabled()  # left as it was found


def test_tokens_per_block():
    policy = PruningPolicy(name="reference", depth=0.5, keep_ratio=0.5)
    assert tokens_per_block(None, 16, 4) == [17, 17, 17, 17]
    assert tokens_per_block(policy, 16, 4) == [17, 17, 10, 10]  # class + summary + 8 kept
    assert tokens_per_block(policy.model_copy(update={"keep_ratio": 1.0}), 16, 4) == [17] * 4
