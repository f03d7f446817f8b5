"""The formula for multiply-adds, compared with torch's own counter."""

import open_clip
import pytest
import torch

from pipeline.model.load import load_model
from pipeline.model.pruning.cost import block_costs, gmacs_per_image
from pipeline.model.pruning.policy import PruningPolicy, named_policy, policy_names
from pipeline.model.spec import ModelSource
from pipeline.model.towers.families import view_of
from tests.kit.families import counted_gmacs

SCORES = ["l2_cls", "cls_attn", "cls_attn_v", "key_norm", "redundancy", "energy", "hybrid", "clip_sem"]

CUTS = {"kind": "stages", "cuts": [{"depth": 0.0, "keep": 0.7}, {"depth": 0.5, "keep": 0.3}]}
POLICIES = {
    "none": None,
    **{name: named_policy(name) for name in policy_names() if name != "none"},
    "whole last block": named_policy("reference").model_copy(update={"class_token_last": False}),
    "score mean": PruningPolicy(name="p", schedule=CUTS, summary="score_mean"),
    "bypass": PruningPolicy(name="p", schedule={"kind": "bypass", "keep": 0.5}, score="cls_attn", reduce="drop"),
    "bipartite": PruningPolicy(name="p", schedule={"kind": "constant", "removed": 0.07}, reduce="bipartite"),
    **{score: PruningPolicy(name=score, schedule=CUTS, score=score, reduce="drop") for score in SCORES},
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_formula_equals_the_counter_on_the_tiny_tower(tiny_model, policy):
    tower = load_model(ModelSource(model=tiny_model), "fp32", "cpu").clip.visual
    counted = counted_gmacs(tower, policy, 32)
    assert gmacs_per_image(tower, policy, (32, 32)) == pytest.approx(counted, rel=1e-9)


@pytest.fixture(scope="module")
def vit_b_16():
    return open_clip.create_model("ViT-B-16", load_weights=False).visual.eval()


@pytest.mark.parametrize("name", ["none", "reference", "balanced"])
def test_formula_equals_the_counter_on_vit_b_16(vit_b_16, name):
    policy = named_policy(name)
    assert gmacs_per_image(vit_b_16, policy, (224, 224)) == pytest.approx(
        counted_gmacs(vit_b_16, policy, 224), rel=1e-9
    )


def test_vit_b_16_has_its_published_cost(vit_b_16):
    # the published figure for ImageNet's ViT-B/16 at 224; the classifier and CLIP's projection are negligible
    assert gmacs_per_image(vit_b_16, None, (224, 224)) == pytest.approx(17.58, abs=0.02)


def test_tower_without_a_formula_is_counted():
    tower = open_clip.modified_resnet.ModifiedResNet([1, 1, 1, 1], output_dim=16, heads=2, image_size=32, width=8)
    gmacs = gmacs_per_image(tower.eval(), None, (32, 32))
    assert gmacs == pytest.approx(counted_gmacs(tower, None, 32), rel=1e-9)
    assert torch.backends.mha.get_fastpath_enabled()  # restored


def test_block_costs_list_the_tokens_of_each_block(tiny_model):
    tower = view_of(load_model(ModelSource(model=tiny_model), "fp32", "cpu").clip.visual)
    policy = PruningPolicy(name="p", schedule={"kind": "stages", "cuts": [{"depth": 0.5, "keep": 0.5}]})
    assert [cost.num_tokens for cost in block_costs(tower, None)] == [17, 17, 17, 17]
    assert [cost.num_tokens for cost in block_costs(tower, policy)] == [17, 17, 10, 10]  # class + summary + 8 kept
    assert [cost.num_patches for cost in block_costs(tower, policy)] == [16, 16, 8, 8]


def test_attentional_pooling_is_counted_with_its_policy():
    tower = open_clip.transformer.VisionTransformer(
        32, 8, 16, 2, 2, 4.0, output_dim=16, attentional_pool=True, attn_pooler_heads=2
    ).eval()
    assert gmacs_per_image(tower, named_policy("balanced"), (32, 32)) < gmacs_per_image(tower, None, (32, 32))
