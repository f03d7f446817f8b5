"""Token maths on tensors small enough to check by hand."""

import itertools

import pytest
import torch

from pipeline.model.tokens import cut_tokens, l2_score


def test_l2_score_of_known_vectors():
    patches_BND = torch.tensor([[[3.0, 4.0], [0.0, -2.0], [5.0, 12.0]]])
    assert l2_score(patches_BND).tolist() == [[5.0, 2.0, 13.0]]


def test_l2_score_is_taken_in_float32():
    # 300^2 overflows fp16, and a sum in bf16 would make near norms equal
    patches_BND = torch.full((1, 1, 64), 300.0, dtype=torch.float16)
    score = l2_score(patches_BND)
    assert score.dtype == torch.float32
    assert score.item() == 2400.0


def test_cut_by_hand():
    x_BTD = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [0.0, 4.0], [3.0, 0.0], [0.0, 2.0]]])
    cut = cut_tokens(x_BTD, l2_score(x_BTD[:, 1:]), num_keep=2)
    assert cut[0, 0].tolist() == [9.0, 9.0]  # the class token stays, first
    assert cut[0, 1].tolist() == [1.0, 1.5]  # mean of all four patches, kept ones included
    assert sorted(cut[0, 2:].tolist()) == [[0.0, 4.0], [3.0, 0.0]]


@pytest.mark.parametrize("num_keep", [1, 4, 9])
def test_kept_set_by_brute_force(num_keep):
    x_BTD = torch.randn(3, 10, 6, generator=torch.Generator().manual_seed(1))
    score_BN = l2_score(x_BTD[:, 1:])
    cut = cut_tokens(x_BTD, score_BN, num_keep)
    assert cut.shape == (3, 2 + num_keep, 6)
    for image, scores, result in zip(x_BTD, score_BN.tolist(), cut, strict=True):
        # the best set of that size is found by trying them all, without sorting or topk
        best = max(itertools.combinations(range(9), num_keep), key=lambda chosen: sum(scores[n] for n in chosen))
        assert {tuple(token.tolist()) for token in result[2:]} == {tuple(image[1 + n].tolist()) for n in best}
        torch.testing.assert_close(result[1], sum(image[1:]) / 9)


def test_score_decides_not_the_norm():
    x_BTD = torch.arange(8.0).reshape(1, 4, 2)
    cut = cut_tokens(x_BTD, torch.tensor([[5.0, 0.0, 1.0]]), num_keep=1)
    assert cut[0, 2].tolist() == [2.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_kept(dtype):
    x_BTD = torch.ones(2, 5, 4, dtype=dtype)
    assert cut_tokens(x_BTD, l2_score(x_BTD[:, 1:]), 2).dtype == dtype


@pytest.mark.parametrize("num_keep", [0, -1, 5])
def test_keep_count_out_of_range(num_keep):
    x_BTD = torch.ones(1, 5, 2)
    with pytest.raises(ValueError, match=rf"num_keep is {num_keep}, expected 1 to 4"):
        cut_tokens(x_BTD, torch.ones(1, 4), num_keep)


def test_score_of_wrong_shape():
    with pytest.raises(ValueError, match=r"\(1, 5\), expected \(1, 4\)"):  # a score for the class token too
        cut_tokens(torch.ones(1, 5, 2), torch.ones(1, 5), 2)
