"""Token maths on tensors small enough to check by hand."""

import itertools

import pytest
import torch

from pipeline.model import scores, tokens

PATCHES = torch.tensor([[[1.0, 0.0], [0.0, 4.0], [3.0, 0.0], [0.0, 2.0]]])
ONES = torch.ones(1, 4)


def random_patches(num_images=3, num_patches=9, width=6):
    return torch.randn(num_images, num_patches, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_keep", [1, 4, 9])
def test_kept_set_by_brute_force(num_keep):
    patches = random_patches()
    score = scores.l2(patches)
    kept = tokens.keep_indices(score, num_keep)
    split_kept, dropped = tokens.split_by_score(patches, score, num_keep)
    for values, chosen, same, others in zip(score.tolist(), kept, split_kept, dropped, strict=True):
        # the best set of that size is found by trying them all, without sorting or topk
        best = max(itertools.combinations(range(9), num_keep), key=lambda indices: sum(values[n] for n in indices))
        assert set(chosen.tolist()) == set(same.tolist()) == set(best)
        assert set(others.tolist()) == set(range(9)) - set(best)


def test_take_is_gather():
    patches, index = random_patches(), torch.tensor([[0, 8], [3, 3], [7, 1]])
    assert torch.equal(tokens.take(patches, index), torch.stack([p[i] for p, i in zip(patches, index, strict=True)]))


@pytest.mark.parametrize("num_keep", [0, 5])
def test_impossible_number_is_refused(num_keep):
    with pytest.raises(ValueError, match=f"num_keep is {num_keep}, expected 1 to 4"):
        tokens.split_by_score(PATCHES, scores.l2(PATCHES), num_keep)
    with pytest.raises(ValueError, match="score has shape"):
        tokens.split_by_score(PATCHES, torch.ones(1, 3), 2)


def test_means_of_dropped_by_hand():
    kept = torch.tensor([[1, 2]])  # dropped: [1, 0] and [0, 2]
    assert tokens.mean_of_dropped(PATCHES, tokens.take(PATCHES, kept)).tolist() == [[[0.5, 1.0]]]
    equal = tokens.score_mean_of_dropped(PATCHES, torch.ones(1, 4), kept)
    torch.testing.assert_close(equal, torch.tensor([[[0.5, 1.0]]]))
    to_last = tokens.score_mean_of_dropped(PATCHES, torch.tensor([[-100.0, 9.0, 9.0, 0.0]]), kept)
    assert to_last[0, 0, 1] > 1.5  # the better one of the dropped weighs more


def test_blend_is_the_mean_over_all_that_both_stand_for():
    old, new = torch.tensor([[[2.0]]]), torch.tensor([[[6.0]]])
    assert tokens.blend(old, 3, new, 1).tolist() == [[[3.0]]]


def test_merge_into_kept_by_hand():
    # kept [0, 4] and [3, 0]; [1, 0] points as the second does, [0, 2] as the first
    kept, dropped = torch.tensor([[1, 2]]), torch.tensor([[0, 3]])
    merged, sizes = tokens.merge_into_kept(PATCHES, ONES, kept, dropped)
    assert merged.tolist() == [[[0.0, 3.0], [2.0, 0.0]]]
    assert sizes.tolist() == [[2.0, 2.0]]
    weighted, sizes = tokens.merge_into_kept(PATCHES, torch.tensor([[3.0, 1.0, 1.0, 1.0]]), kept, dropped)
    assert weighted.tolist() == [[[0.0, 3.0], [1.5, 0.0]]]
    assert sizes.tolist() == [[2.0, 4.0]]


def test_merge_pairs_by_hand():
    # sources are tokens 0 and 2, targets 1 and 3; token 2 is nearest to its target and goes
    metric = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.1, 1.0]]])
    merged, sizes = tokens.merge_pairs(PATCHES, ONES, metric, 1)
    assert merged.tolist() == [[[1.0, 0.0], [0.0, 4.0], [1.5, 1.0]]]
    assert sizes.tolist() == [[1.0, 1.0, 2.0]]


@pytest.mark.parametrize("num_merged", [0, 1, 4])
def test_merging_keeps_the_total(num_merged):
    patches, sizes = random_patches(), torch.rand(3, 9, generator=torch.Generator().manual_seed(2)) + 1
    merged, merged_sizes = tokens.merge_pairs(patches, sizes, patches, num_merged)
    assert merged.shape == (3, 9 - num_merged, 6)
    torch.testing.assert_close(merged_sizes.sum(1), sizes.sum(1))
    before, after = ((x * s.unsqueeze(-1)).sum(1) for x, s in ((patches, sizes), (merged, merged_sizes)))
    torch.testing.assert_close(after, before)
