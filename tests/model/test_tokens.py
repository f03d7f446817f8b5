"""Token maths on tensors small enough to check by hand."""

import dataclasses
import itertools

import pytest
import torch

from pipeline.model.pruning import scores, tokens

PATCHES = torch.tensor([[[1.0, 0.0], [0.0, 4.0], [3.0, 0.0], [0.0, 2.0]]])


def random_patches(num_images=3, num_patches=9, width=6):
    return torch.randn(num_images, num_patches, width, generator=torch.Generator().manual_seed(1))


def with_sizes(patches, *sizes):
    return dataclasses.replace(tokens.Patches.all_of(patches), sizes_BN=torch.tensor([sizes]))


@pytest.mark.parametrize("num_keep", [1, 4, 9])
def test_kept_set_by_brute_force(num_keep):
    score = scores.l2(random_patches())
    for values, chosen in zip(score.tolist(), tokens.keep_indices(score, num_keep), strict=True):
        # find the best set of that size by trying them all, without sorting or topk
        best = max(itertools.combinations(range(9), num_keep), key=lambda indices: sum(values[n] for n in indices))
        assert set(chosen.tolist()) == set(best)


def test_put_undoes_take():
    patches, index = random_patches(), torch.tensor([[0, 8], [3, 4], [7, 1]])
    changed = tokens.put(patches, index, tokens.take(patches, index) + 1)
    expected = patches.clone()
    for image, places in enumerate(index):
        expected[image, places] += 1
    assert torch.equal(changed, expected)


def test_take_is_gather():
    patches, index = random_patches(), torch.tensor([[0, 8], [3, 3], [7, 1]])
    assert torch.equal(tokens.take(patches, index), torch.stack([p[i] for p, i in zip(patches, index, strict=True)]))


@pytest.mark.parametrize("num_keep", [0, 5])
def test_impossible_number_is_refused(num_keep):
    with pytest.raises(ValueError, match=f"num_keep = {num_keep}: expected 1 to 4"):
        tokens.keep_indices(scores.l2(PATCHES), num_keep)


def test_means_of_dropped_by_hand():
    kept = torch.tensor([[1, 2]])  # dropped: [1, 0] and [0, 2]
    assert tokens.mean_of_dropped(PATCHES, tokens.take(PATCHES, kept)).tolist() == [[[0.5, 1.0]]]
    equal = tokens.score_mean_of_dropped(PATCHES, torch.ones(1, 4), kept)
    torch.testing.assert_close(equal, torch.tensor([[[0.5, 1.0]]]))
    to_last = tokens.score_mean_of_dropped(PATCHES, torch.tensor([[-100.0, 9.0, 9.0, 0.0]]), kept)
    assert to_last[0, 0, 1] > 1.5  # the dropped token with the higher score weighs more


def test_blend_is_the_mean_over_all_tokens_of_both_summaries():
    old, new = torch.tensor([[[2.0]]]), torch.tensor([[[6.0]]])
    assert tokens.blend(old, 3, new, 1).tolist() == [[[3.0]]]


def test_merge_into_kept_by_hand():
    patches = torch.tensor([[[1.0, 1.0], [0.0, 4.0], [3.0, 0.0], [0.0, 2.0], [1.0, 0.5]]])
    # kept [0, 4] and [3, 0]; [0, 2] goes to the first, [1, 1] to either, [1, 0.5] to the second
    merged = tokens.merge_into_kept(tokens.Patches.all_of(patches[:, 1:]), torch.tensor([[0, 1]]))
    # the means are [0, 3] and [2, 0.25]; lengths stay 4 and 3
    expected = torch.tensor([[0.0, 4.0], [3 * 2 / 4.0625**0.5, 3 * 0.25 / 4.0625**0.5]])
    torch.testing.assert_close(merged.x_BND[0], expected)
    assert merged.sizes_BN.tolist() == [[2.0, 2.0]]
    assert merged.places_BN.tolist() == [[0, 1]]
    weighted = tokens.merge_into_kept(with_sizes(patches[:, 1:], 1.0, 1.0, 1.0, 3.0), torch.tensor([[0, 1]]))
    direction = torch.tensor([3.0 + 3 * 1, 3 * 0.5])
    torch.testing.assert_close(weighted.x_BND[0, 1], 3 * direction / direction.norm())
    assert weighted.sizes_BN.tolist() == [[2.0, 4.0]]


def test_equal_kept_tokens_stay_separate():
    merged = tokens.merge_into_kept(tokens.Patches.all_of(torch.ones(1, 3, 2)), torch.tensor([[2, 0]]))
    assert sorted(merged.sizes_BN[0].tolist()) == [1.0, 2.0]


def test_merge_pairs_by_hand():
    # sources are tokens 0 and 2, targets 1 and 3; token 2 is nearest to its target and merges into it
    metric = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.1, 1.0]]])
    merged = tokens.merge_pairs(tokens.Patches.all_of(PATCHES), metric, 1)
    assert merged.x_BND.tolist() == [[[1.0, 0.0], [0.0, 4.0], [1.5, 1.0]]]
    assert merged.sizes_BN.tolist() == [[1.0, 1.0, 2.0]]
    assert merged.places_BN.tolist() == [[0, 1, 3]]


@pytest.mark.parametrize("num_merged", [0, 1, 4])
def test_merging_keeps_the_total(num_merged):
    patches, sizes = random_patches(), torch.rand(3, 9, generator=torch.Generator().manual_seed(2)) + 1
    before = dataclasses.replace(tokens.Patches.all_of(patches), sizes_BN=sizes)
    paired = tokens.merge_pairs(before, patches, num_merged)
    kept = tokens.merge_into_kept(before, tokens.keep_indices(sizes, 9 - num_merged))
    for after in (paired, kept):
        assert after.x_BND.shape == (3, 9 - num_merged, 6)
        torch.testing.assert_close(after.sizes_BN.sum(1), sizes.sum(1))
    totals = [(each.x_BND * each.sizes_BN.unsqueeze(-1)).sum(1) for each in (before, paired)]
    torch.testing.assert_close(totals[1], totals[0])
    lengths = tokens.take(patches, kept.places_BN).norm(dim=-1)
    torch.testing.assert_close(kept.x_BND.norm(dim=-1), lengths)
