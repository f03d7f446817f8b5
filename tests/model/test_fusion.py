"""The maths of the fusion: it starts at zero, updates and shares the right weights, merges and unmerges."""

from types import SimpleNamespace

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.hf_model import HFTextEncoder
from torch import nn
from torch.func import functional_call

from pipeline.errors import ConfigError, InputError
from pipeline.model.adapter.files import merge
from pipeline.model.adapter.fusion import Fusion, FusionConfig, core_of, text_blocks
from pipeline.model.pruning.attach import attach
from pipeline.model.pruning.policy import named_policy
from pipeline.model.towers.families import view_of
from tests.kit.adapters import ALL, trained
from tests.kit.families import FAMILIES, SMALL
from tests.kit.tiny import TINY_CONFIG

VARIANTS = ["shared", "shared+head", "independent", "image-only"]


def clip_with(tower):
    torch.manual_seed(5)
    clip = open_clip.CLIP(**TINY_CONFIG["model_cfg"]).eval()
    if tower is not None:
        clip.visual = tower().eval()
    return clip.requires_grad_(False)


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def clip(request):
    return clip_with(request.param)


@pytest.fixture
def tiny():
    return clip_with(None)


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def embed(clip, images):
    features = clip.visual(images)
    return F.normalize(features[0] if isinstance(features, tuple) else features, dim=-1)


@pytest.mark.parametrize("factors", ["free", "singular"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_new_fusion_leaves_the_weights_unchanged_to_the_bit(tiny, images, variant, factors):
    before = {name: weight.clone() for name, weight in tiny.state_dict().items()}
    features = embed(tiny, images)
    merge(Fusion(tiny, FusionConfig(rank=4, targets=ALL, variant=variant, factors=factors)), tiny)
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.state_dict().items())
    assert torch.equal(embed(tiny, images), features)


@torch.no_grad()
def test_merged_and_separate_updates_agree_in_every_family_pruned_or_not(clip, images):
    fusion = trained(Fusion(clip, FusionConfig(rank=4, targets=ALL, variant="image-only")), 0.1)
    before, bare = embed(clip, images), clip.state_dict()
    bare = {name: weight.clone() for name, weight in bare.items()}
    updated = {name.removeprefix("visual."): bare[name] + update for name, update in fusion.updates().items()}
    for policy in (None, named_policy("fast")):
        detach = attach(clip.visual, policy)
        features = functional_call(clip.visual, updated, (images,))
        features = F.normalize(features[0] if isinstance(features, tuple) else features, dim=-1)
        unmerge = merge(fusion, clip)
        assert torch.allclose(embed(clip, images), features, atol=1e-5)
        assert not torch.allclose(features, before, atol=1e-3)
        unmerge()
        detach()
    assert all(torch.equal(weight, bare[name]) for name, weight in clip.state_dict().items())
    assert torch.equal(embed(clip, images), before)


def test_every_block_and_target_of_a_family_is_updated(clip):
    fusion = trained(Fusion(clip, FusionConfig(rank=2, targets=ALL, variant="shared")))
    updates = fusion.updates()
    for number, _ in enumerate(view_of(clip.visual).blocks):
        of_block = [name for name in updates if name.startswith("visual.") and f"blocks.{number}." in name]
        rows = sum(int((updates[name].abs().sum(dim=1) > 0).sum()) for name in of_block)
        width, mlp = SMALL["embed_dim"], [update.shape[0] for name, update in updates.items() if name in of_block]
        assert rows == sum(mlp) >= 4 * width  # no row of queries, keys, values, output or MLP is missing
    assert sum(name.startswith("transformer.resblocks") for name in updates) == 2 * 4


def test_only_the_targets_are_updated_by_the_formula(tiny):
    fusion = trained(Fusion(tiny, FusionConfig(rank=3, alpha=5.0, targets=("q", "v"))))
    weight = "visual.transformer.resblocks.2.attn.in_proj_weight"
    query, key, value = fusion.updates()[weight].chunk(3)
    up, down, core = (fusion.up["image-2-q"], fusion.down["image-2-q"], fusion.core["1-q"])
    assert torch.allclose(query, 5.0 / 3**0.5 * up @ core @ down, atol=1e-6)
    assert torch.count_nonzero(key) == 0
    assert torch.count_nonzero(value) == value.numel()
    assert not any("mlp" in name or "out_proj" in name for name in fusion.updates())


@pytest.mark.parametrize(("variant", "is_shared"), [("shared", True), ("independent", False)])
def test_a_core_affects_both_towers_or_only_its_own(tiny, variant, is_shared):
    fusion = trained(Fusion(tiny, FusionConfig(rank=4, targets=("q",), variant=variant)))
    before = fusion.updates()
    name = next(name for name in fusion.core if name in ("0-q", "image-0-q"))
    with torch.no_grad():
        fusion.core[name].add_(1.0)
    changed = {weight for weight, update in fusion.updates().items() if not torch.equal(update, before[weight])}
    blocks = {f"visual.transformer.resblocks.{number}.attn.in_proj_weight" for number in (0, 1)}
    assert changed == blocks | ({"transformer.resblocks.0.attn.in_proj_weight"} if is_shared else set())


def test_the_head_shares_its_basis_and_has_no_core(tiny):
    fusion = Fusion(tiny, FusionConfig(rank=4, targets=("q",), variant="shared+head"))
    basis = fusion.up["head"]
    trained(fusion)
    updates = fusion.updates()
    for name in ("visual.proj", "text_projection"):
        assert updates[name].shape == tiny.get_parameter(name).shape
        # every row is a combination of the shared basis
        residual = updates[name].T - basis @ torch.linalg.lstsq(basis, updates[name].T).solution
        assert residual.abs().max() < 1e-5
    assert not any("head" in name for name in fusion.core)


@pytest.mark.parametrize("variant", ["shared", "independent", "shared+head"])
@pytest.mark.parametrize("factors", ["free", "singular"])
def test_gradients_reach_both_towers(tiny, images, variant, factors):
    fusion = trained(Fusion(tiny, FusionConfig(rank=4, targets=ALL, variant=variant, factors=factors)), 0.05)
    weights = {name: tiny.get_parameter(name) + update for name, update in fusion.updates().items()}
    tokens = torch.randint(0, 100, (3, 77))[:, : TINY_CONFIG["model_cfg"]["text_cfg"].get("context_length", 77)]
    image, text, _ = functional_call(tiny, weights, (images, tokens))
    (image * text).sum().backward()
    for name, parameter in fusion.named_parameters():
        if parameter.requires_grad:
            assert torch.count_nonzero(parameter.grad) > 0, name
        else:
            assert factors == "singular"
            assert name.startswith(("up.", "down."))


def test_singular_factors_come_from_the_weight(tiny):
    fusion = Fusion(tiny, FusionConfig(rank=4, targets=("o",), factors="singular"))
    weight = tiny.visual.transformer.resblocks[1].attn.out_proj.weight
    up, down = fusion.up["image-1-o"], fusion.down["image-1-o"]
    strengths = (up.T @ weight @ down.T).diagonal()
    assert torch.allclose(strengths, torch.linalg.svdvals(weight)[:4], atol=1e-5)


def test_towers_of_unequal_depth_share_cores():
    assert [core_of(block, 24, 12) for block in range(24)] == [block // 2 for block in range(24)]
    assert [core_of(block, 12, 12) for block in range(12)] == list(range(12))
    assert [core_of(block, 12, 2) for block in range(12)] == [0] * 6 + [1] * 6


def test_the_seed_determines_the_start(tiny):
    first, same, other = (Fusion(tiny, FusionConfig(), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["down.image-0-q"], other["down.image-0-q"])


def test_a_rank_larger_than_the_width_is_refused(tiny):
    with pytest.raises(ConfigError, match=r"rank = 33.*expected at most 32"):
        Fusion(tiny, FusionConfig(rank=33))


def test_towers_that_cannot_be_updated_say_why(tiny):
    with pytest.raises(InputError, match="Hugging Face"):
        text_blocks(SimpleNamespace(text=HFTextEncoder.__new__(HFTextEncoder)))
    tiny.visual.proj = None
    with pytest.raises(InputError, match="image tower of this model has no output projection"):
        Fusion(tiny, FusionConfig(variant="shared+head"))
    tiny.visual = nn.Conv2d(3, 8, 3)
    with pytest.raises(InputError, match="not a Vision Transformer"):
        Fusion(tiny, FusionConfig())
