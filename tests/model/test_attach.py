"""Attaching a policy to real open_clip towers: what it changes, what it keeps, what it refuses."""

import open_clip
import pytest
import torch

from pipeline.errors import ConfigError, InputError
from pipeline.model.load import load_model
from pipeline.model.pruning import tokens
from pipeline.model.pruning.attach import attach
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.spec import ModelSource
from pipeline.model.towers import attention, onednn
from pipeline.model.towers.families import unprunable_reason, view_of


def reference(keep=0.7, depth=0.25, **parts):
    schedule = {"kind": "stages", "cuts": [{"depth": depth, "keep": keep}]}
    return PruningPolicy(**{"name": "reference", "schedule": schedule, **parts})


@pytest.fixture(scope="module")
def loaded_clip(tiny_model):
    return load_model(ModelSource(model=tiny_model), "fp32", "cpu").clip


@pytest.fixture
def clip(loaded_clip):
    # a test that forgets to detach must not affect the next one
    yield loaded_clip
    for block in loaded_clip.visual.transformer.resblocks:
        block._forward_pre_hooks.clear()
        vars(block).pop("forward", None)


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def reference_features(tower, images, block_index, num_keep):
    """The reference method, computed per image and token without the code under test."""
    outputs = []
    for image in images:
        x = tower.conv1(image[None])[0].flatten(1).T  # [N, D]
        x = torch.cat([tower.class_embedding[None], x]) + tower.positional_embedding
        x = tower.ln_pre(x)
        for index, block in enumerate(tower.transformer.resblocks):
            if index == block_index:
                patches = x[1:]
                norms = [float((token**2).sum() ** 0.5) for token in patches]
                best = sorted(range(len(norms)), key=lambda n: norms[n], reverse=True)[:num_keep]
                x = torch.stack([x[0], patches.mean(0), *(patches[n] for n in best)])
            x = block(x[None])[0]
        outputs.append(tower.ln_post(x[0]) @ tower.proj)
    return torch.stack(outputs)


@torch.no_grad()
@pytest.mark.parametrize(("depth", "block_index"), [(0.0, 0), (0.25, 1), (0.8, 3)])
@pytest.mark.parametrize("keep_ratio", [0.3, 0.7])
def test_equals_the_reference_method(clip, images, depth, block_index, keep_ratio):
    policy = reference(keep_ratio, depth)
    detach = attach(clip.visual, policy)
    pruned = clip.encode_image(images)
    detach()
    expected = reference_features(clip.visual, images, block_index, int(keep_ratio * 16))
    torch.testing.assert_close(pruned, expected, rtol=1e-4, atol=1e-5)
    # the cut has an effect, otherwise the line above would prove nothing
    assert not torch.allclose(pruned, clip.encode_image(images), atol=1e-3)


@torch.no_grad()
def test_no_policy_is_open_clip_to_the_bit(clip, images, tiny_model):
    own = open_clip.create_model(tiny_model).eval().encode_image(images)
    attach(clip.visual, None)
    assert torch.equal(clip.encode_image(images), own)


@torch.no_grad()
def test_detach_leaves_the_tower_as_it_was(clip, images):
    before = clip.encode_image(images)
    detach = attach(clip.visual, reference())
    assert not torch.equal(clip.encode_image(images), before)
    detach()
    assert torch.equal(clip.encode_image(images), before)
    detach()  # twice is harmless
    assert torch.equal(clip.encode_image(images), before)
    assert not any(block._forward_pre_hooks for block in clip.visual.transformer.resblocks)


@torch.no_grad()
def test_keep_ratio_one_is_the_identity(clip, images):
    before = clip.encode_image(images)
    attach(clip.visual, reference(1.0, class_token_last=False))
    assert torch.equal(clip.encode_image(images), before)


@torch.no_grad()
def test_every_image_has_the_same_number_of_tokens(clip):
    lengths = []
    last = clip.visual.transformer.resblocks[-1]
    handle = last.register_forward_pre_hook(lambda block, args: lengths.append(tuple(args[0].shape)))
    attach(clip.visual, reference(0.5))
    # blank images next to noise: a threshold would keep different numbers of tokens
    clip.encode_image(torch.cat([torch.zeros(1, 3, 32, 32), torch.randn(1, 3, 32, 32)]))
    clip.encode_image(torch.zeros(1, 3, 32, 32))
    handle.remove()
    assert lengths == [(2, 1 + 1 + 8, 32), (1, 1 + 1 + 8, 32)]


def test_keeping_no_token_is_refused(clip):
    with pytest.raises(ConfigError, match="keeps 0 of 16 patch tokens at block 1 of 4"):
        attach(clip.visual, reference(0.05))


@torch.no_grad()
def test_class_token_alone_in_the_last_block_is_lossless(clip, images):
    before = clip.visual(images)
    detach = attach(clip.visual, PruningPolicy(name="lossless"))
    lengths = []
    last = clip.visual.transformer.resblocks[-1]
    handle = last.register_forward_hook(lambda block, args, output: lengths.append(output.shape[1]))
    torch.testing.assert_close(clip.visual(images), before, rtol=0, atol=1e-5)
    handle.remove()
    detach()
    assert lengths == [1]
    assert torch.equal(clip.visual(images), before)


CUTS = {"kind": "stages", "cuts": [{"depth": 0.25, "keep": 0.6}, {"depth": 0.5, "keep": 0.4}]}
SCORES = [
    "l2",
    "l2_robust",
    "l2_cls",
    "cls_attn",
    "cls_attn_v",
    "key_norm",
    "redundancy",
    "energy",
    "hybrid",
    "clip_sem",
]


@torch.no_grad()
@pytest.mark.parametrize("reduce", ["drop", "summary", "merge", "bipartite"])
@pytest.mark.parametrize("score", [*SCORES, "random", "grid"])
def test_every_score_and_reduction_in_two_stages(clip, images, score, reduce):
    before = clip.visual(images)
    lengths = []
    third = clip.visual.transformer.resblocks[2]
    policy = PruningPolicy(
        name="p", schedule=CUTS, score=score, reduce=reduce, size_weight=0.0 if reduce == "drop" else 1
    )
    detach = attach(clip.visual, policy)
    handle = third.register_forward_hook(lambda block, args, output: lengths.append(output.shape[1]))
    pruned = clip.visual(images)
    handle.remove()
    # images are independent: the others in the batch must not matter
    if score != "random":
        torch.testing.assert_close(pruned[1:2], clip.visual(images[1:2]), rtol=1e-4, atol=1e-5)
    detach()
    assert lengths == [1 + (reduce == "summary") + 6]
    assert torch.isfinite(pruned).all()
    assert not torch.allclose(pruned, before, atol=1e-3)
    assert torch.equal(clip.visual(images), before)


@torch.no_grad()
@pytest.mark.parametrize("reduce", ["merge", "bipartite"])
def test_merging_equal_tokens_with_their_sizes_changes_nothing(clip, reduce):
    # equal patches without positions: every merge combines equal tokens, and sizes compensate for it exactly
    tower = clip.visual
    kept = tower.positional_embedding.data.clone()
    tower.positional_embedding.data.zero_()
    try:
        image = torch.full((1, 3, 32, 32), 0.5)
        before = tower(image)
        detach = attach(tower, reference(0.5, 0.0, reduce=reduce, size_weight=1.0))
        torch.testing.assert_close(tower(image), before, rtol=1e-4, atol=1e-5)
        detach()
        detach = attach(tower, reference(0.5, 0.0, reduce=reduce, size_weight=0.0))
        assert not torch.allclose(tower(image), before, atol=1e-4)
        detach()
    finally:
        tower.positional_embedding.data.copy_(kept)


def test_all_attention_methods_agree():
    query, key, value = torch.randn(3, 2, 4, 7, 8, generator=torch.Generator().manual_seed(0))
    log_sizes = torch.rand(2, 7, generator=torch.Generator().manual_seed(1)) * 3
    fused = torch.nn.functional.scaled_dot_product_attention
    masked = fused(query, key, value, attn_mask=log_sizes[:, None, None])
    for attend in (attention.attend, attention.attend_densely):
        torch.testing.assert_close(attend(query, key, value, log_sizes), masked)
    torch.testing.assert_close(attention.attend(query, key, value), fused(query, key, value))
    torch.testing.assert_close(
        attention.attend_densely(query[:, :, :1], key, value, None), fused(query, key, value)[:, :, :1]
    )
    low = [part.bfloat16() for part in (query, key, value)]
    torch.testing.assert_close(attention.attend(*low, log_sizes).float(), masked, rtol=0.05, atol=0.02)


def test_dense_attention_is_for_short_sequences_in_bf16_on_a_cpu():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert attention.dense_is_faster(cpu, torch.bfloat16, 197) == onednn.computes_bf16()
    assert not attention.dense_is_faster(cpu, torch.bfloat16, 2501)
    assert not attention.dense_is_faster(cpu, torch.float32, 197)
    assert not attention.dense_is_faster(gpu, torch.bfloat16, 197)


@torch.no_grad()
def test_second_summary_represents_all_dropped_tokens(clip, images):
    """After two cuts the summary is the mean of all dropped tokens, as if a single cut had dropped them."""
    seen = {}
    policy = PruningPolicy(name="p", schedule=CUTS, summary="mean_dropped", class_token_last=False)
    blocks = clip.visual.transformer.resblocks
    handle = blocks[1].register_forward_hook(lambda block, args, output: seen.update(middle=output))
    detach = attach(clip.visual, policy)
    other = blocks[2].register_forward_pre_hook(lambda block, args: seen.update(after=args[0]))
    clip.visual(images)
    handle.remove()
    other.remove()
    detach()
    old, patches = seen["middle"][:, 1:2], seen["middle"][:, 2:]
    dropped = patches.sum(1, keepdim=True) - seen["after"][:, 2:].sum(1, keepdim=True)
    expected = (old * (16 - 9) + dropped) / (16 - 6)
    torch.testing.assert_close(seen["after"][:, 1:2], expected, rtol=1e-4, atol=1e-5)
    assert tokens.keep_indices(patches.norm(dim=-1), 6).shape == (3, 6)


TOWERS = {
    "no ln_pre": {"no_ln_pre": True},
    "query-key norms": {"qk_norm": True},
    "norm-former": {"scale_heads": True, "scale_attn_inner": True, "scale_attn": True, "scale_fc": True},
    "layer scale": {"ls_init_value": 0.1},
    "norm after pooling": {"final_ln_after_pool": True},
    "CoCa": {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 4, "output_tokens": True},
}


@torch.no_grad()
@pytest.mark.parametrize("extra", TOWERS.values(), ids=TOWERS.keys())
def test_families_of_open_clip_towers(extra, images):
    torch.manual_seed(5)
    tower = open_clip.transformer.VisionTransformer(32, 8, 32, 4, 2, 4.0, output_dim=16, **extra).eval()
    assert unprunable_reason(tower) is None

    def pooled():
        output = tower(images)
        return output[0] if isinstance(output, tuple) else output

    before = pooled()
    detach = attach(tower, PruningPolicy(name="lossless"))
    torch.testing.assert_close(pooled(), before, rtol=0, atol=1e-5)
    detach()
    detach = attach(tower, PruningPolicy(name="p", schedule=CUTS, score="l2_cls", reduce="merge", size_weight=0.75))
    assert not torch.allclose(pooled(), before, atol=1e-4)
    detach()
    assert torch.equal(pooled(), before)


@torch.no_grad()
@pytest.mark.parametrize("extra", TOWERS.values(), ids=TOWERS.keys())
def test_our_blocks_equal_open_clips_own(extra):
    torch.manual_seed(5)
    tower = open_clip.transformer.VisionTransformer(32, 8, 32, 4, 2, 4.0, output_dim=16, **extra).eval()
    for parameter in tower.parameters():  # move scales and norms away from the identity
        parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(3, 17, 32)
    for block in tower.transformer.resblocks:
        torch.testing.assert_close(
            view_of(tower).run_block(block, x, torch.zeros(3, 17), None), block(x), rtol=1e-4, atol=1e-4
        )
        class_only = view_of(tower).class_token_block(block, x)
        torch.testing.assert_close(class_only, block(x)[:, :1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_sizes_without_a_cut_change_nothing(clip, images):
    before = clip.visual(images)
    attach(clip.visual, PruningPolicy(name="p", size_weight=1.0, class_token_last=False))
    assert torch.equal(clip.visual(images), before)


def test_resnet_tower_is_refused_with_the_reason():
    tower = open_clip.modified_resnet.ModifiedResNet([1, 1, 1, 1], output_dim=16, heads=2, image_size=32, width=8)
    with pytest.raises(InputError, match=r"ModifiedResNet is not a Vision Transformer; use the policy `none`"):
        attach(tower, reference())
    attach(tower, None)


def test_tower_pooled_by_its_patches_is_refused_with_the_reason():
    tower = open_clip.transformer.VisionTransformer(32, 8, 16, 2, 2, 4.0, output_dim=16, pool_type="avg")
    with pytest.raises(InputError, match="pools by the mean of its patch tokens"):
        attach(tower, reference())
