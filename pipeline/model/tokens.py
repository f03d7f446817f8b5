"""Token maths of pruning: tensors in, tensors out. Imports torch and nothing else.

Shapes: B images, T tokens of a sequence, N patch tokens, K kept patch tokens, M dropped ones, D width. A sequence is
prefix tokens (the class token first), then the summary token if there is one, then patch tokens in any order: their
positions are already added, and attention does not see order. All counts are equal for the whole batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def split_by_score(patches_BND: Tensor, score_BN: Tensor, num_keep: int) -> tuple[Tensor, Tensor]:
    """Indices of the `num_keep` best patch tokens (int64 [B, K]) and of the others ([B, M]); neither is sorted.

    Raises:
        ValueError: If `num_keep` is out of range or the shapes disagree.
    """
    num_images, num_patches, _ = patches_BND.shape
    if not 1 <= num_keep <= num_patches:
        raise ValueError(f"num_keep is {num_keep}, expected 1 to {num_patches}")
    if score_BN.shape != (num_images, num_patches):
        raise ValueError(f"score has shape {tuple(score_BN.shape)}, expected {(num_images, num_patches)}")
    order_BN = score_BN.topk(num_patches, dim=1).indices
    return order_BN[:, :num_keep], order_BN[:, num_keep:]


def keep_indices(score_BN: Tensor, num_keep: int) -> Tensor:
    """Indices of the `num_keep` best tokens, int64 [B, K], unsorted: cheaper than `split_by_score`."""
    return score_BN.topk(num_keep, dim=1, sorted=False).indices


def take(tokens_BND: Tensor, index_BK: Tensor) -> Tensor:
    """Gather tokens: [B, K, D]. Whole rows by one flat index: several times quicker on CPU than `gather`."""
    num_images, num_tokens, width = tokens_BND.shape
    offsets_B1 = torch.arange(0, num_images * num_tokens, num_tokens, device=index_BK.device).unsqueeze(1)
    rows = tokens_BND.reshape(-1, width).index_select(0, (index_BK + offsets_B1).flatten())
    return rows.view(num_images, -1, width)


def mean_of_dropped(patches_BND: Tensor, kept_BKD: Tensor) -> Tensor:
    """Mean over the tokens that are not kept, [B, 1, D], from sums: the dropped are never gathered."""
    num_dropped = patches_BND.shape[1] - kept_BKD.shape[1]
    total_B1D = patches_BND.sum(dim=1, keepdim=True, dtype=torch.float32)
    kept_B1D = kept_BKD.sum(dim=1, keepdim=True, dtype=torch.float32)
    return ((total_B1D - kept_B1D) / num_dropped).to(patches_BND.dtype)


def score_mean_of_dropped(patches_BND: Tensor, score_BN: Tensor, kept_BK: Tensor) -> Tensor:
    """Mean over the dropped, weighted by the softmax of their standardised scores, [B, 1, D]."""
    finite_BN = score_BN.nan_to_num(posinf=0.0)
    standard_BN = (finite_BN - finite_BN.mean(dim=1, keepdim=True)) / (finite_BN.std(dim=1, keepdim=True) + 1e-6)
    weights_BN = standard_BN.scatter(1, kept_BK, -torch.inf).softmax(dim=1)
    return weights_BN.to(patches_BND.dtype).unsqueeze(1) @ patches_BND


def blend(old_B1D: Tensor, old_size: int, new_B1D: Tensor, new_size: int) -> Tensor:
    """One summary that stands for what two stood for, weighted by how many tokens that was."""
    weight = new_size / (old_size + new_size)
    return torch.lerp(old_B1D, new_B1D, weight)


def merge_into_kept(
    patches_BND: Tensor, sizes_BN: Tensor, kept_BK: Tensor, dropped_BM: Tensor
) -> tuple[Tensor, Tensor]:
    """Average every dropped token into the kept token of largest cosine; weights are sizes.

    Returns:
        `(tokens [B, K, D], sizes [B, K])`; the sizes of all tokens still sum to what they summed to.
    """
    kept_BKD, dropped_BMD = take(patches_BND, kept_BK), take(patches_BND, dropped_BM)
    # the norm of a dropped token does not change which kept token is nearest to it
    nearness_BMK = dropped_BMD @ F.normalize(kept_BKD, dim=-1).transpose(1, 2)
    target_BM = nearness_BMK.float().max(dim=-1).indices
    return _merge(kept_BKD, sizes_BN.gather(1, kept_BK), dropped_BMD, sizes_BN.gather(1, dropped_BM), target_BM)


def merge_pairs(patches_BND: Tensor, sizes_BN: Tensor, metric_BNE: Tensor, num_merged: int) -> tuple[Tensor, Tensor]:
    """Bipartite soft matching: of every other token, the `num_merged` most similar go into their best match.

    From the formulas of Bolya et al. 2022 (arXiv 2210.09461), section 3: tokens alternate between two sets, each of
    the first finds its most similar in the second, and the most similar pairs are averaged, weighted by size.

    Args:
        patches_BND: Token states.
        sizes_BN: How many patches each token stands for, float32.
        metric_BNE: What similarity is taken of: the mean key over heads.
        num_merged: Tokens that vanish (count, at most half of N).
    """
    num_sources = (patches_BND.shape[1] + 1) // 2
    num_merged = min(num_merged, patches_BND.shape[1] // 2)
    unit_BNE = F.normalize(metric_BNE, dim=-1)
    best_BS, match_BS = (unit_BNE[:, ::2] @ unit_BNE[:, 1::2].transpose(1, 2)).max(dim=-1)
    order_BS = best_BS.topk(num_sources, dim=1).indices
    gone_BM, stay_BR = order_BS[:, :num_merged], order_BS[:, num_merged:]
    sources_BSD, source_sizes_BS = patches_BND[:, ::2], sizes_BN[:, ::2]
    merged, merged_sizes = _merge(
        patches_BND[:, 1::2],
        sizes_BN[:, 1::2],
        take(sources_BSD, gone_BM),
        source_sizes_BS.gather(1, gone_BM),
        match_BS.gather(1, gone_BM),
    )
    tokens = torch.cat([take(sources_BSD, stay_BR), merged], dim=1)
    return tokens, torch.cat([source_sizes_BS.gather(1, stay_BR), merged_sizes], dim=1)


def _merge(
    into_BKD: Tensor, into_sizes_BK: Tensor, from_BMD: Tensor, from_sizes_BM: Tensor, target_BM: Tensor
) -> tuple[Tensor, Tensor]:
    # sums by a matrix product with a one-hot matrix: on CPU much quicker than scatter_add over the width
    onehot_BKM = torch.zeros(*into_sizes_BK.shape, target_BM.shape[1], dtype=from_BMD.dtype, device=from_BMD.device)
    onehot_BKM.scatter_(1, target_BM.unsqueeze(1), 1)
    weighted_BMD = from_BMD * from_sizes_BM.unsqueeze(-1).to(from_BMD.dtype)
    own_BKD = into_BKD * into_sizes_BK.unsqueeze(-1).to(into_BKD.dtype)
    sizes_BK = into_sizes_BK.scatter_add(1, target_BM, from_sizes_BM)
    return torch.baddbmm(own_BKD, onehot_BKM, weighted_BMD) / sizes_BK.unsqueeze(-1).to(into_BKD.dtype), sizes_BK
