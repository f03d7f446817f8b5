"""What the image towers compute on a GPU: the same as on a CPU, compiled or not, for every family."""

import numpy as np
import pytest
import torch

from pipeline.model.device import has_fp8
from pipeline.model.encode import Encoder, fastest_encoder, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning.attach import attach
from pipeline.model.pruning.policy import named_policy
from pipeline.model.spec import ModelSource
from pipeline.model.towers.attention import attend
from tests.kit.agreement import compute, decided_differently
from tests.kit.families import FAMILIES

POLICIES = ["none", "lossless", "balanced", "fast", "reference"]

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def full_precision_of_convolutions(monkeypatch):
    """torch rounds the factors of float32 convolutions on a GPU to 10 bits, which can change which tokens are kept."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def on_gpu():
    return load_model(ModelSource(model="scenes"), "fp32", "cuda")


@pytest.fixture(scope="module")
def on_cpu():
    return load_model(ModelSource(model="scenes"), "fp32", "cpu")


@pytest.fixture(scope="module")
def pixels(on_cpu):
    size = on_cpu.spec.preprocess
    shape = (24, size.height, size.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def features(tower, images):
    output = tower(images)
    return output[0] if isinstance(output, tuple) else output


def cosines(some, others):
    return (some * others).sum(axis=1)


@pytest.mark.parametrize("policy", ["balanced", "reference"])
@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES.keys())
@torch.no_grad()
def test_every_family_computes_the_same_as_on_a_cpu(make, policy):
    torch.manual_seed(5)
    tower = make().eval()
    images = torch.randn(3, 3, 32, 32)
    # `l2_cls` can score two tokens of a small tower equally, and a GPU may then keep another one than a CPU
    attach(tower, named_policy(policy).model_copy(update={"score": "cls_attn"}))
    expected = features(tower, images)
    torch.testing.assert_close(features(tower.cuda(), images.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("policy", POLICIES)
def test_embeddings_equal_those_of_a_cpu(on_cpu, on_gpu, pixels, policy):
    # equal scores may be decided differently; `tests/model/test_agreement.py` tests this comparison without a GPU
    decided_differently(*(compute(loaded, named_policy(policy), pixels) for loaded in (on_cpu, on_gpu)))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_precision_of_auto_is_near_full_precision(on_gpu, pixels, policy):
    low = fastest_encoder(load_model(ModelSource(model="scenes"), "auto", "cuda"), named_policy(policy))
    assert low.spec.precision in ("fp32", "bf16", "fp16")
    full = fastest_encoder(sharing_weights(on_gpu), named_policy(policy))
    assert cosines(low.encode(pixels), full.encode(pixels)).mean() > 0.98


def test_texts_equal_those_of_a_cpu(on_cpu, on_gpu):
    some, others = (
        Encoder(sharing_weights(loaded), None).encode_texts(["a red circle"]) for loaded in (on_cpu, on_gpu)
    )
    assert cosines(some, others).min() > 0.9999


@pytest.mark.parametrize("policy", ["none", "balanced"])
def test_a_compiled_tower_gives_the_same_embeddings(on_gpu, pixels, policy):
    plain, encoder = (fastest_encoder(sharing_weights(on_gpu), named_policy(policy)) for _ in range(2))
    assert encoder.compile(16) is None
    for batch in (pixels[:16], pixels[8:], pixels[:5], pixels):
        assert cosines(encoder.encode(batch), plain.encode(batch)).min() > 0.9999


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 72, 80])
def test_weighted_attention_equals_that_of_a_cpu(dtype, width):
    query, key, value = torch.randn(3, 2, 4, 50, width, generator=torch.Generator().manual_seed(0))
    log_sizes = torch.rand(2, 50, generator=torch.Generator().manual_seed(1)) * 3
    expected = attend(query, key, value, log_sizes)
    found = attend(*(part.to("cuda", dtype) for part in (query, key, value)), log_sizes.cuda()).float().cpu()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=1e-4 if dtype == torch.float32 else 0.05)


def test_a_batch_that_does_not_fit_is_halved(on_gpu, pixels):
    encoder = Encoder(sharing_weights(on_gpu), None)
    expected = encoder.encode(pixels)
    many = np.concatenate([pixels] * 40)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        found = encoder.encode(many)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert encoder.num_halvings > 0
    assert cosines(found, np.concatenate([expected] * 40)).min() > 0.9999


@pytest.mark.parametrize("policy", ["none", "balanced", "fast"])
def test_fp8_is_near_bf16_and_is_compiled(pixels, policy):
    if not has_fp8(torch.device("cuda")):
        pytest.skip("this GPU does not multiply FP8 numbers")
    bf16, fp8 = (load_model(ModelSource(model="scenes"), precision, "cuda") for precision in ("bf16", "8bit"))
    assert fp8.spec.precision == "fp8"
    encoder = fastest_encoder(fp8, named_policy(policy))
    found = encoder.encode(pixels)
    assert cosines(found, fastest_encoder(bf16, named_policy(policy)).encode(pixels)).mean() > 0.97
    assert cosines(encoder.encode(pixels[:5]), found[:5]).min() > 0.9999  # scales are per row, not per batch
    assert encoder.compile(16) is None
    assert cosines(encoder.encode(pixels[:16]), found[:16]).mean() > 0.99
