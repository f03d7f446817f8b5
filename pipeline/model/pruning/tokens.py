"""Token maths of pruning: tensors in, tensors out. Imports only torch.

Shapes: B images, T tokens in a sequence, N patch tokens, K kept patch tokens, M dropped ones, D width. A sequence has
prefix tokens (the class token first), then the summary token if there is one, then patch tokens in any order: their
positions are already added or travel with them, and attention ignores order. All counts are the same for every image
of a batch.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Patches:
    """The patch tokens of a batch as they move through a tower."""

    x_BND: Tensor
    sizes_BN: Tensor
    """How many patches each token represents; float32."""

    places_BN: Tensor
    """Index of each token among the tower's patches, row by row; int64. A merged token has the place of its target."""

    @classmethod
    def all_of(cls, x_BND: Tensor) -> "Patches":
        """All patches, each with size 1."""
        sizes_BN = torch.ones(x_BND.shape[:2], device=x_BND.device)
        return cls(x_BND, sizes_BN, torch.arange(x_BND.shape[1], device=x_BND.device).expand(len(x_BND), -1))

    def only(self, kept_BK: Tensor) -> "Patches":
        """The tokens at the given indices; the sizes of the others are lost."""
        return Patches(take(self.x_BND, kept_BK), self.sizes_BN.gather(1, kept_BK), self.places_BN.gather(1, kept_BK))


def keep_indices(score_BN: Tensor, num_keep: int) -> Tensor:
    """Indices of the `num_keep` best tokens, int64 [B, K], unsorted.

    Raises:
        ValueError: If `num_keep` is out of range.
    """
    if not 1 <= num_keep <= score_BN.shape[1]:
        raise ValueError(f"num_keep = {num_keep}: expected 1 to {score_BN.shape[1]}")
    return score_BN.topk(num_keep, dim=1, sorted=False).indices


def take(tokens_BND: Tensor, index_BK: Tensor) -> Tensor:
    """Gather tokens: [B, K, D]. Selects whole rows by one flat index: several times faster on a CPU than `gather`."""
    num_images, num_tokens, width = tokens_BND.shape
    offsets_B1 = torch.arange(0, num_images * num_tokens, num_tokens, device=index_BK.device).unsqueeze(1)
    rows = tokens_BND.reshape(-1, width).index_select(0, (index_BK + offsets_B1).flatten())
    return rows.view(num_images, -1, width)


def put(tokens_BND: Tensor, index_BK: Tensor, new_BKD: Tensor) -> Tensor:
    """Replace the tokens at the given indices: [B, N, D]. The inverse of `take`."""
    num_images, num_tokens, width = tokens_BND.shape
    offsets_B1 = torch.arange(0, num_images * num_tokens, num_tokens, device=index_BK.device).unsqueeze(1)
    rows = tokens_BND.reshape(-1, width).index_copy(0, (index_BK + offsets_B1).flatten(), new_BKD.flatten(0, 1))
    return rows.view(num_images, num_tokens, width)


def mean_of_dropped(patches_BND: Tensor, kept_BKD: Tensor) -> Tensor:
    """Mean over the dropped tokens, [B, 1, D], computed from sums without gathering them."""
    num_dropped = patches_BND.shape[1] - kept_BKD.shape[1]
    total_B1D = patches_BND.sum(dim=1, keepdim=True, dtype=torch.float32)
    kept_B1D = kept_BKD.sum(dim=1, keepdim=True, dtype=torch.float32)
    return ((total_B1D - kept_B1D) / num_dropped).to(patches_BND.dtype)


def score_mean_of_dropped(patches_BND: Tensor, score_BN: Tensor, kept_BK: Tensor) -> Tensor:
    """Mean over the dropped tokens, weighted by the softmax of their standardised scores, [B, 1, D]."""
    finite_BN = score_BN.nan_to_num(posinf=0.0)
    standard_BN = (finite_BN - finite_BN.mean(dim=1, keepdim=True)) / (finite_BN.std(dim=1, keepdim=True) + 1e-6)
    weights_BN = standard_BN.scatter(1, kept_BK, -torch.inf).softmax(dim=1)
    return weights_BN.to(patches_BND.dtype).unsqueeze(1) @ patches_BND


def blend(old_B1D: Tensor, old_size: int, new_B1D: Tensor, new_size: int) -> Tensor:
    """Combine two summaries into one, weighted by the number of tokens that each represents."""
    weight = new_size / (old_size + new_size)
    return torch.lerp(old_B1D, new_B1D, weight)


def merge_into_kept(patches: Patches, kept_BK: Tensor) -> Patches:
    """Merge every dropped token into the kept token with the largest cosine.

    A merged token has the direction of the mean of its tokens, weighted by size, and the length of the kept token: a
    mean of dissimilar vectors is short, and later blocks were trained on tokens of full length. (Keeping the largest
    length is MLERP, Kim et al. 2023, arXiv 2312.01026.) The sum of the sizes of an image does not change.
    """
    kept = patches.only(kept_BK)
    length_BK1 = torch.linalg.vector_norm(kept.x_BND, dim=-1, keepdim=True)
    # the length of a token does not affect which kept token is nearest
    nearness_BNK = patches.x_BND @ (kept.x_BND / length_BK1).transpose(1, 2)
    target_BN = nearness_BNK.max(dim=-1).indices
    own_BK = torch.arange(kept_BK.shape[1], device=kept_BK.device).expand_as(kept_BK)
    target_BN = target_BN.scatter(1, kept_BK, own_BK)  # a kept token maps to itself, even if another is equal
    sums_BKD, sizes_BK = _sums_by_target(patches.x_BND, patches.sizes_BN, target_BN, kept_BK.shape[1])
    scale_BK1 = length_BK1 / torch.linalg.vector_norm(sums_BKD, dim=-1, keepdim=True)
    return Patches(sums_BKD * scale_BK1, sizes_BK, kept.places_BN)


def merge_pairs(patches: Patches, metric_BNE: Tensor, num_merged: int) -> Patches:
    """Bipartite soft matching: out of every second token, merge the `num_merged` most similar into their best match.

    Follows the formulas of Bolya et al. 2022 (arXiv 2210.09461), section 3: tokens alternate between two sets, each
    token of the first finds the most similar in the second, and the most similar pairs are averaged, weighted by size.

    Args:
        patches: The tokens.
        metric_BNE: The vectors to compare: the mean key over heads.
        num_merged: Number of tokens to remove.

    Raises:
        ValueError: If `num_merged` is more than half of N.
    """
    if not 0 <= num_merged <= patches.x_BND.shape[1] // 2:
        raise ValueError(f"num_merged = {num_merged}: expected 0 to {patches.x_BND.shape[1] // 2}")
    x_BND, sizes_BN, places_BN = patches.x_BND, patches.sizes_BN, patches.places_BN
    num_sources = (x_BND.shape[1] + 1) // 2
    unit_BNE = F.normalize(metric_BNE, dim=-1)
    best_BS, match_BS = (unit_BNE[:, ::2] @ unit_BNE[:, 1::2].transpose(1, 2)).max(dim=-1)
    order_BS = best_BS.topk(num_sources, dim=1).indices
    gone_BM, stay_BR = order_BS[:, :num_merged], order_BS[:, num_merged:]
    sources = Patches(x_BND[:, ::2], sizes_BN[:, ::2], places_BN[:, ::2])
    gone, stay = sources.only(gone_BM), sources.only(stay_BR)
    into_BRD, into_sizes_BR = x_BND[:, 1::2], sizes_BN[:, 1::2]
    sums_BRD, added_BR = _sums_by_target(gone.x_BND, gone.sizes_BN, match_BS.gather(1, gone_BM), into_BRD.shape[1])
    merged_sizes_BR = into_sizes_BR + added_BR
    merged_BRD = sums_BRD + into_BRD * into_sizes_BR.unsqueeze(-1).to(into_BRD.dtype)
    return Patches(
        torch.cat([stay.x_BND, merged_BRD / merged_sizes_BR.unsqueeze(-1).to(x_BND.dtype)], dim=1),
        torch.cat([stay.sizes_BN, merged_sizes_BR], dim=1),
        torch.cat([stay.places_BN, places_BN[:, 1::2]], dim=1),
    )


def _sums_by_target(x_BND: Tensor, sizes_BN: Tensor, target_BN: Tensor, num_targets: int) -> tuple[Tensor, Tensor]:
    """Sums of s x and of s over the tokens that go to each target: [B, K, D], [B, K]."""
    # multiply by a one-hot matrix: on a CPU much faster than scatter_add over the width
    onehot_BKN = torch.zeros(len(x_BND), num_targets, x_BND.shape[1], dtype=x_BND.dtype, device=x_BND.device)
    onehot_BKN.scatter_(1, target_BN.unsqueeze(1), 1)
    sizes_BK = torch.zeros(len(x_BND), num_targets, device=x_BND.device).scatter_add(1, target_BN, sizes_BN)
    return onehot_BKN @ (x_BND * sizes_BN.unsqueeze(-1).to(x_BND.dtype)), sizes_BK
