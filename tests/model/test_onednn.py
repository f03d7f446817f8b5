"""oneDNN's kernels match torch's default ones up to rounding, and never use outdated weights."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import nn

from pipeline.model.pruning.attach import attach
from pipeline.model.pruning.policy import named_policy
from pipeline.model.towers import onednn

pytestmark = pytest.mark.skipif(
    not onednn.suits(torch.device("cpu"), torch.bfloat16), reason="oneDNN does not compute bf16 on this processor"
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_rounded(found, exact):
    """As accurate as rounding the exact result once, or twice for values near zero."""
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=2**-7, atol=2**-7 * exact.abs().mean().item())


INPUTS = {
    "sequences": lambda: random(3, 7, 32),
    "rows": lambda: random(5, 32),
    "class tokens": lambda: random(3, 7, 32)[:, :1],
    "not contiguous": lambda: random(7, 3, 32).transpose(0, 1),
}


@torch.inference_mode()
@pytest.mark.parametrize("make", INPUTS.values(), ids=INPUTS.keys())
@pytest.mark.parametrize("rows", [slice(None), slice(16, 48)], ids=["all rows", "some rows"])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("gelu", [None, "none", "tanh"])
def test_linear(make, rows, has_bias, gelu):
    x, weight = make().bfloat16(), random(48, 32, seed=1).bfloat16()
    bias = random(48, seed=2).bfloat16() if has_bias else None
    exact = F.linear(x.float(), weight[rows].float(), None if bias is None else bias[rows].float())
    if gelu:
        exact = F.gelu(exact, approximate=gelu)
    with torch.inference_mode(False):
        weight = nn.Parameter(weight.clone())
    assert_rounded(onednn.linear(x, weight, bias, rows, gelu), exact)


@torch.inference_mode()
def test_softmax():
    logits = (4 * random(6, 5, 197)).bfloat16()
    logits[0, 0, 1:] = -torch.inf
    assert_rounded(onednn.softmax(logits), logits.float().softmax(dim=-1))


def test_an_in_place_change_of_a_weight_is_noticed():
    weight, x = nn.Parameter(random(8, 32).bfloat16()), random(4, 32, seed=1).bfloat16()
    with torch.no_grad():
        before = onednn.linear(x, weight, None)
        assert torch.equal(onednn.linear(x, weight, None), before)
        weight.mul_(2)
        assert torch.equal(onednn.linear(x, weight, None), 2 * before)


def test_a_weight_replaced_for_one_call_is_noticed():
    module, x = nn.Linear(32, 8).bfloat16(), random(4, 32).bfloat16()
    module.forward = partial(onednn.linear_forward, module, None)
    other = {name: 2 * value.detach() for name, value in module.named_parameters()}
    with torch.no_grad():
        before = module(x)
        assert torch.equal(torch.func.functional_call(module, other, (x,)), 2 * before)
        assert torch.equal(module(x), before)


def test_gradients_are_torchs_own():
    def gradient(forward):
        weight, x = nn.Parameter(random(8, 32).bfloat16()), random(4, 32, seed=1).bfloat16()
        forward(x, weight).float().square().sum().backward()
        return weight.grad

    ours = gradient(lambda x, weight: onednn.softmax(onednn.linear(x, weight, None, gelu="tanh")))
    own = gradient(lambda x, weight: F.gelu(F.linear(x, weight), approximate="tanh").softmax(dim=-1))
    assert torch.equal(ours, own)


def test_a_tower_uses_it_while_a_policy_is_attached():
    tower = VisionTransformer(32, 8, 128, 3, 2, 4.0, output_dim=16).eval().bfloat16()
    images, called = random(2, 3, 32, 32).bfloat16(), []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.append(str(function))
            return function(*args, **(kwargs or {}))

    def kinds(forward):
        called.clear()
        with torch.no_grad(), Watch():
            features = forward(images)
        return {name for name in called if "gelu" in name or "linear" in name or "addmm" in name}, features

    plain, expected = kinds(tower)
    detach = attach(tower, named_policy("lossless"))
    attached, features = kinds(tower)
    detach()
    again, _ = kinds(tower)
    assert attached == {"mkldnn._linear_pointwise.default", "mkldnn._reorder_linear_weight.default"}
    assert plain == again
    assert plain.isdisjoint(attached)
    assert F.cosine_similarity(features.float(), expected.float()).min() > 0.9995
