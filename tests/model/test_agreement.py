"""The comparison that the tests on a GPU use: what it lets pass, and what it finds. Needs no GPU."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.model.encode import sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning import tokens
from pipeline.model.pruning.policy import named_policy
from pipeline.model.spec import ModelSource
from tests.kit.agreement import compute, decided_differently

FAST = named_policy("fast")


@pytest.fixture(scope="module")
def loaded():
    return load_model(ModelSource(model="scenes"), "fp32", "cpu")


@pytest.fixture(scope="module")
def pixels(loaded):
    size = loaded.spec.preprocess
    return np.random.default_rng(0).integers(0, 256, (24, size.height, size.width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(loaded, pixels):
    return compute(loaded, FAST, pixels)


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # torch's own flags ask for it
@pytest.mark.parametrize("policy", ["none", "lossless", "balanced", "fast", "reference"])
def test_other_kernels_agree(loaded, pixels, policy):
    some = compute(loaded, named_policy(policy), pixels)
    with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
        others = compute(loaded, named_policy(policy), pixels)
    assert policy in ("none", "lossless") or some.kept
    assert not np.array_equal(some.embeddings_BE, others.embeddings_BE)  # rounded otherwise
    decided_differently(some, others)


def test_equal_scores_may_be_decided_either_way(loaded, pixels, expected, monkeypatch):
    keep = tokens.keep_indices

    def keep_later_ones(score_BN, num_keep):
        return keep(score_BN + torch.linspace(0, 1e-3, score_BN.shape[1], device=score_BN.device), num_keep)

    monkeypatch.setattr(tokens, "keep_indices", keep_later_ones)
    images = decided_differently(expected, compute(loaded, FAST, pixels))
    assert 0 < len(images) < len(pixels)


def test_another_patch_that_scores_less_is_found(loaded, pixels, expected, monkeypatch):
    def keep_the_next_one(score_BN, num_keep):
        best_BK = score_BN.topk(num_keep + 2, dim=1).indices
        return torch.cat([best_BK[:, : num_keep - 1], best_BK[:, -1:]], dim=1)  # the best but one that was left out

    monkeypatch.setattr(tokens, "keep_indices", keep_the_next_one)
    with pytest.raises(AssertionError, match="their scores are not equal"):
        decided_differently(expected, compute(loaded, FAST, pixels))


def test_another_embedding_of_the_same_patches_is_found(loaded, pixels, expected):
    other = sharing_weights(loaded)
    other.clip.visual.proj = torch.nn.Parameter(other.clip.visual.proj * torch.linspace(0.9, 1.1, 192))
    with pytest.raises(AssertionError, match="cosine"):
        decided_differently(expected, compute(other, FAST, pixels))
