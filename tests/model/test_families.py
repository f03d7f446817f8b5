"""Every family of towers that can be pruned, small and with random weights, through open_clip's own classes."""

import copy

import open_clip
import pytest
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer

from pipeline.errors import ConfigError, InputError
from pipeline.model.pruning.attach import attach
from pipeline.model.pruning.cost import gmacs_per_image, patches_per_block
from pipeline.model.pruning.policy import PruningPolicy, named_policy
from pipeline.model.towers import kernels, onednn
from pipeline.model.towers.families import unprunable_reason, view_of
from tests.kit.families import FAMILIES, counted_gmacs, own, with_weights
from tests.kit.families import features_of as features

SCORES = ["l2", "l2_robust", "l2_cls", "cls_attn", "cls_attn_v", "key_norm", "redundancy", "energy", "hybrid"]
CUTS = {"kind": "stages", "cuts": [{"depth": 0.25, "keep": 0.6}, {"depth": 0.5, "keep": 0.4}]}
ONE_CUT = {"kind": "stages", "cuts": [{"depth": 0.25, "keep": 0.5}]}


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def tower(request):
    torch.manual_seed(5)
    return with_weights(request.param().eval(), 1.2)  # large enough for every part to have an effect


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def policy(**parts):
    return PruningPolicy(**{"name": "p", **parts})


@torch.no_grad()
def test_without_a_policy_or_detached_the_tower_is_unchanged_to_the_bit(tower, images):
    before = features(tower, images)
    attach(tower, None)
    assert torch.equal(features(tower, images), before)
    detach = attach(tower, policy(schedule=CUTS, reduce="merge", size_weight=1.0))
    assert not torch.allclose(features(tower, images), before, atol=1e-2)
    detach()
    detach()
    assert torch.equal(features(tower, images), before)


@torch.no_grad()
def test_lossless_is_lossless(tower, images):
    before = features(tower, images)
    detach = attach(tower, named_policy("lossless"))
    torch.testing.assert_close(features(tower, images), before, rtol=0, atol=1e-5)
    detach()
    saves = gmacs_per_image(tower, named_policy("lossless"), (32, 32)) < gmacs_per_image(tower, None, (32, 32))
    assert saves == view_of(tower).reads_class_token_only


@torch.no_grad()
def test_dropping_equals_masking(tower, images):
    """Dropping tokens is equivalent to masking them in the blocks, the positions and the pool."""
    view, places = view_of(tower), []
    detach = attach(tower, policy(schedule=ONE_CUT, reduce="drop"), lambda number, kept: places.append(kept))
    pruned = features(tower, images)
    detach()
    mask = torch.full((3, 1, 1, view.num_prefix + 16), -torch.inf)
    mask[..., : view.num_prefix] = 0
    mask[:, 0, 0].scatter_(1, places[0] + view.num_prefix, 0)

    def add_mask(module, args, kwargs, per_head):
        if per_head:  # open_clip's multi-head attention wants [B H, T, T]
            length = args[0].shape[1]
            return args, kwargs | {"attn_mask": mask[:, 0].repeat_interleave(2, 0).expand(-1, length, -1)}
        return args, kwargs | {"attn_mask": mask}

    is_own = isinstance(tower, VisionTransformer)
    handles = [
        block.register_forward_pre_hook(lambda *given: add_mask(*given, is_own), with_kwargs=True)
        for block in view.blocks[1:]
    ]
    if is_own and view.pool is not None:
        view.pool.forward = lambda x: view.pool_with_sizes(x, mask[:, 0, 0])
    elif view.pool is not None:
        handles.append(view.pool.register_forward_pre_hook(lambda *given: add_mask(*given, False), with_kwargs=True))
    masked = features(tower, images)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(pruned, masked, rtol=1e-4, atol=1e-4)
    view_of(tower).pool is None or vars(view.pool).pop("forward", None)
    assert not torch.allclose(pruned, features(tower, images), atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("reduce", ["drop", "summary", "merge", "bipartite"])
def test_every_score_and_reduction(tower, images, reduce):
    before = features(tower, images)
    for score in [*SCORES, "clip_sem", "random", "grid"]:
        chosen = policy(schedule=CUTS, score=score, reduce=reduce, size_weight=0.0 if reduce == "drop" else 0.75)
        detach = attach(tower, chosen)
        pruned = features(tower, images)
        # images are independent; mutually nearest tokens are equally redundant, so rounding breaks the tie
        if score not in ("random", "redundancy"):
            alone = features(tower, images[1:2])
            torch.testing.assert_close(pruned[1:2], alone, rtol=1e-3, atol=1e-4)
        detach()
        assert torch.isfinite(pruned).all()
        assert not torch.equal(pruned, before)


@torch.no_grad()
def test_sizes_of_one_change_nothing(tower, images):
    view = view_of(tower)
    x = torch.randn(3, view.num_prefix + 16, 32)
    rope = tower.trunk.rope.get_embed() if getattr(getattr(tower, "trunk", None), "rope", None) else None
    ones = torch.zeros(x.shape[:2])
    for block in view.blocks:
        expected = block(x, rope=rope) if rope is not None else block(x)
        torch.testing.assert_close(view.run_block(block, x, ones, rope), expected, rtol=1e-4, atol=1e-4)
        class_only = view.class_token_block(block, x, None, rope)
        torch.testing.assert_close(class_only, expected[:, :1], rtol=1e-4, atol=1e-4)
    if view.pool is not None:
        torch.testing.assert_close(view.pool_with_sizes(x, ones), view.pool(x), rtol=1e-4, atol=1e-4)
    tokens = x if view.pool is not None else expected
    torch.testing.assert_close(
        view.feature_of_each(tokens[:, :1])[:, 0], view.head(tokens[:, :1]), rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
def test_low_precision_on_a_cpu_is_the_same_up_to_rounding(tower, images, monkeypatch):
    """With bf16 on a CPU that oneDNN computes it on, our own blocks run for speed, whatever the policy."""
    monkeypatch.setattr(kernels, "WIDE_HEADS", 16)
    tower = copy.deepcopy(tower).bfloat16()
    before = features(tower, images.bfloat16()).float()
    detach = attach(tower, named_policy("lossless"))
    is_replaced = ["forward" in vars(block) for block in view_of(tower).blocks]
    after = features(tower, images.bfloat16()).float()
    detach()
    assert all(is_replaced) == onednn.computes_bf16()
    assert torch.cosine_similarity(after, before).min() > 0.999
    assert torch.equal(features(tower, images.bfloat16()).float(), before)


@torch.no_grad()
def test_a_tower_can_keep_torchs_own_kernels(tower, images, monkeypatch):
    monkeypatch.setattr(kernels, "WIDE_HEADS", 16)
    monkeypatch.setattr(onednn, "_applies", lambda x: pytest.fail("oneDNN was called"))
    tower = copy.deepcopy(tower).bfloat16()
    onednn.use(tower, "torch")
    before = features(tower, images.bfloat16()).float()
    attach(tower, named_policy("lossless").model_copy(update={"class_token_last": False}))
    assert not any("forward" in vars(module) for module in tower.modules())
    assert torch.equal(features(tower, images.bfloat16()).float(), before)
    pruned = copy.deepcopy(tower)
    attach(pruned, named_policy("reference").model_copy(update={"score": "cls_attn"}))
    assert torch.isfinite(features(pruned, images.bfloat16())).all()


@torch.no_grad()
def test_bypassed_tokens_come_back(tower, images):
    """A token that bypasses one block is a candidate for the next, unchanged."""
    before, kept = features(tower, images), []
    chosen = policy(schedule={"kind": "bypass", "start": 0.25, "keep": 0.5}, reduce="drop")
    detach = attach(tower, chosen, lambda number, places: kept.append((number, set(places[0].tolist()))))
    pruned = features(tower, images)
    detach()
    assert [number for number, _ in kept] == [1, 2, 3]
    assert all(len(places) == 8 for _, places in kept)
    assert not torch.allclose(pruned, before, atol=1e-2)
    detach = attach(tower, policy(schedule={"kind": "bypass", "keep": 1.0}, reduce="drop", class_token_last=False))
    assert torch.equal(features(tower, images), before)
    detach()


@torch.no_grad()
def test_summary_offset_is_added_and_trained(tower, images):
    chosen = policy(schedule=ONE_CUT)
    detach = attach(tower, chosen)
    plain = features(tower, images)
    detach()
    offsets = torch.zeros(4, 32, requires_grad=True)
    detach = attach(tower, chosen, summary_offsets_LD=offsets)
    assert torch.equal(features(tower, images), plain)
    with torch.enable_grad():
        features(tower, images).square().sum().backward()
    detach()
    assert offsets.grad[1].abs().sum() > 0
    assert offsets.grad[[0, 2, 3]].abs().sum() == 0


def test_formula_equals_the_counter(tower):
    for chosen in (None, policy(schedule=CUTS), named_policy("balanced"), named_policy("lossless")):
        assert gmacs_per_image(tower, chosen, (32, 32)) == pytest.approx(counted_gmacs(tower, chosen, 32), rel=1e-3)


def test_gmac_ratio_is_reached(tower):
    chosen = policy(schedule=ONE_CUT, reduce="drop", gmac_ratio=1.5)
    unpruned, pruned = (gmacs_per_image(tower, p, (32, 32)) for p in (None, chosen))
    assert unpruned / pruned >= 1.5
    counts = patches_per_block(view_of(tower), chosen)
    more = [counts[0], *[count + 1 for count in counts[1:]]]  # one more token would miss the ratio
    keep = more[1] / 16
    weaker = policy(schedule={"kind": "stages", "cuts": [{"depth": 0.25, "keep": keep}]}, reduce="drop")
    assert unpruned / gmacs_per_image(tower, weaker, (32, 32)) < 1.5
    with pytest.raises(
        ConfigError, match=r"gmac_ratio = 40: policy 'p' reaches at most [\d.]+ on this tower \(16 patch"
    ):
        attach(tower, policy(schedule=ONE_CUT, reduce="drop", gmac_ratio=40.0))


@torch.no_grad()
@pytest.mark.parametrize("name", ["reference", "balanced"])
def test_static_shapes_under_compile(tower, images, name):
    detach = attach(tower, named_policy(name))
    expected = features(tower, images)
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(tower, backend=count, fullgraph=True, dynamic=False)
    for _ in range(2):
        torch.testing.assert_close(features(compiled, images), expected, rtol=1e-4, atol=1e-4)
    features(compiled, images.flip(0))
    detach()
    torch._dynamo.reset()
    assert len(graphs) == 1  # compiled as a whole, and not again for other images


def test_towers_of_timm_that_cannot_be_pruned():
    wrong = [
        TimmModel("resnet18", 16, 32, pool="avg", proj=None).eval(),
        TimmModel("small_vit", 16, 32, pool="avg", proj=None),
        own(scaled_cosine_attn=True, block_type="custom"),
    ]
    reasons = ["ResNet is not a plain Vision Transformer", "pools by avg, which a cut would bias", "scaled cosine"]
    for tower, reason in zip(wrong, reasons, strict=True):
        assert reason in unprunable_reason(tower)
        with pytest.raises(InputError, match=f"{reason}.*; use the policy `none`"):
            attach(tower, policy(schedule=ONE_CUT))
    assert gmacs_per_image(wrong[0], None, (32, 32)) > 0


def test_open_clip_has_the_families_tested_here():
    names = set(open_clip.list_models())
    assert {"ViT-B-16-SigLIP", "ViT-B-16-SigLIP2", "EVA02-B-16", "EVA01-g-14", "PE-Core-B-16", "coca_ViT-B-32"} <= names
