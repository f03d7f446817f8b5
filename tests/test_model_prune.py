"""Attaching a policy to real open_clip towers: what it changes, what it leaves alone, what it refuses."""

import open_clip
import pytest
import torch

from pipeline.errors import ConfigError, InputError
from pipeline.model.load import load_model
from pipeline.model.prune import attach, tower_shape, unprunable_reason
from pipeline.policy import PruningPolicy
from pipeline.spec import ModelSource


@pytest.fixture(scope="module")
def loaded_clip(tiny_model):
    return load_model(ModelSource(model=tiny_model), "fp32", "cpu").clip


@pytest.fixture
def clip(loaded_clip):
    # a test that forgets to detach must not change what the next one sees
    yield loaded_clip
    for block in loaded_clip.visual.transformer.resblocks:
        block._forward_pre_hooks.clear()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def reference_features(tower, images, block_index, num_keep):
    """The reference method, written out image by image and token by token, without the code under test."""
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
    policy = PruningPolicy(name="reference", depth=depth, keep_ratio=keep_ratio)
    detach = attach(clip.visual, policy)
    pruned = clip.encode_image(images)
    detach()
    expected = reference_features(clip.visual, images, block_index, int(keep_ratio * 16))
    torch.testing.assert_close(pruned, expected, rtol=1e-4, atol=1e-5)
    # and the cut is felt, else the line above would prove nothing
    assert not torch.allclose(pruned, clip.encode_image(images), atol=1e-3)


@torch.no_grad()
def test_no_policy_is_open_clip_to_the_bit(clip, images, tiny_model):
    own = open_clip.create_model(tiny_model).eval().encode_image(images)
    attach(clip.visual, None)
    assert torch.equal(clip.encode_image(images), own)


@torch.no_grad()
def test_detach_leaves_the_tower_as_it_was(clip, images):
    before = clip.encode_image(images)
    detach = attach(clip.visual, PruningPolicy(name="reference"))
    assert not torch.equal(clip.encode_image(images), before)
    detach()
    assert torch.equal(clip.encode_image(images), before)
    detach()  # twice is harmless
    assert torch.equal(clip.encode_image(images), before)
    assert not any(block._forward_pre_hooks for block in clip.visual.transformer.resblocks)


@torch.no_grad()
def test_keep_ratio_one_is_the_identity(clip, images):
    before = clip.encode_image(images)
    attach(clip.visual, PruningPolicy(name="reference", keep_ratio=1.0))
    assert torch.equal(clip.encode_image(images), before)


@torch.no_grad()
def test_every_image_has_the_same_number_of_tokens(clip):
    lengths = []
    last = clip.visual.transformer.resblocks[-1]
    handle = last.register_forward_pre_hook(lambda block, args: lengths.append(tuple(args[0].shape)))
    attach(clip.visual, PruningPolicy(name="reference", keep_ratio=0.5))
    # images of nothing beside images of noise: a threshold would keep different numbers
    clip.encode_image(torch.cat([torch.zeros(1, 3, 32, 32), torch.randn(1, 3, 32, 32)]))
    clip.encode_image(torch.zeros(1, 3, 32, 32))
    handle.remove()
    assert lengths == [(2, 1 + 1 + 8, 32), (1, 1 + 1 + 8, 32)]


def test_keeping_no_token_is_refused(clip):
    with pytest.raises(ConfigError, match=r"keep_ratio 0.05 keeps none of 16 patch tokens; expected at least 0.0625"):
        attach(clip.visual, PruningPolicy(name="reference", keep_ratio=0.05))


def test_tower_shape(clip):
    assert tower_shape(clip.visual) == (16, 4)
    assert unprunable_reason(clip.visual) is None


def test_resnet_tower_is_refused_with_the_reason():
    tower = open_clip.modified_resnet.ModifiedResNet([1, 1, 1, 1], output_dim=16, heads=2, image_size=32, width=8)
    with pytest.raises(InputError, match=r"ModifiedResNet is not open_clip's VisionTransformer; use --policy none"):
        attach(tower, PruningPolicy(name="reference"))
    attach(tower, None)


@pytest.mark.parametrize("extra", [{"pool_type": "avg"}, {"attentional_pool": True, "attn_pooler_heads": 2}])
def test_other_pooling_is_refused_with_the_reason(extra):
    # without a class token's attention to them, dropped tokens are missing from the pool itself
    tower = open_clip.transformer.VisionTransformer(32, 8, 16, 2, 2, 4.0, output_dim=16, **extra)
    with pytest.raises(InputError, match="it is not pooled by its class token"):
        attach(tower, PruningPolicy(name="reference"))
