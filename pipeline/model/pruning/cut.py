"""One cut of a policy: shorten the sequence that enters a block. No hooks, no state.

Shapes: B images, T tokens in the sequence, N patch tokens before the cut, K after it, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.model.pruning import scores, tokens
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.pruning.tokens import Patches
from pipeline.model.towers.tower import Tower

_ENERGY_MARGIN = 0.9  # at the first block, falling to 0 at the last (PiToMe)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A place where a policy shortens the sequence of a tower."""

    tower: Tower
    policy: PruningPolicy
    number: int
    """Number of the block that follows the cut."""

    num_before: int
    """Patch tokens before the cut."""

    num_keep: int
    """Patch tokens after the cut."""

    summary_offsets_LD: Tensor | None = None
    """Added to the summary token before each of L blocks; learnt by an adapter."""

    @property
    def start(self) -> int:
        """Index of the first patch token, after the prefix and the summary."""
        is_first = self.num_before == self.tower.num_patches
        return self.tower.num_prefix + (self.policy.reduce == "summary" and not is_first)

    @property
    def block(self) -> nn.Module:
        """The block that follows the cut."""
        return self.tower.blocks[self.number]

    def __call__(self, x_BTD: Tensor, patches: Patches, rope: Tensor | None) -> tuple[Tensor, Patches]:
        """Shorten the sequence.

        Args:
            x_BTD: The sequence that enters the block.
            patches: Its patch tokens, with their sizes and places.
            rope: Rotary positions of the sequence, if the tower has them.

        Returns:
            `(sequence, patches)`, shorter by `num_before - num_keep`; the first cut may add one summary token.
        """
        prefix_BPD = x_BTD[:, : self.tower.num_prefix]
        if self.policy.reduce == "bipartite":
            patches = tokens.merge_pairs(patches, self._mean_key(patches.x_BND), self.num_before - self.num_keep)
            return torch.cat([prefix_BPD, patches.x_BND], dim=1), patches
        score_BN = self.score(x_BTD, patches, rope)
        kept_BK = tokens.keep_indices(score_BN, self.num_keep)
        if self.policy.reduce == "merge":
            patches = tokens.merge_into_kept(patches, kept_BK)
            return torch.cat([prefix_BPD, patches.x_BND], dim=1), patches
        kept = patches.only(kept_BK)
        if self.policy.reduce == "drop":
            return torch.cat([prefix_BPD, kept.x_BND], dim=1), kept
        old_B1D = x_BTD[:, self.tower.num_prefix : self.start]
        summary_B1D = self._summary(patches.x_BND, score_BN, kept_BK, kept.x_BND, old_B1D)
        return torch.cat([prefix_BPD, summary_B1D, kept.x_BND], dim=1), kept

    def score(self, x_BTD: Tensor, patches: Patches, rope: Tensor | None) -> Tensor:
        """Importance of each patch token, [B, N] float32."""
        tower, block, name, patches_BND = self.tower, self.block, self.policy.score, patches.x_BND
        if name in ("l2", "l2_robust", "redundancy"):
            return getattr(scores, name)(patches_BND)
        if name == "energy":
            return scores.energy(patches_BND, _ENERGY_MARGIN * (1 - self.number / len(tower.blocks)))
        if name == "random":
            return scores.random(*patches_BND.shape[:2], patches_BND.device, self.policy.seed)
        if name == "grid":
            return scores.grid(patches.places_BN, *tower.grid)
        if name == "clip_sem":
            return scores.clip_sem(tower.reader_feature(x_BTD), tower.feature_of_each(patches_BND))
        if name == "key_norm":
            return scores.key_norm(self._mean_key(patches_BND))
        logits_BHN = tower.reader_logits(block, x_BTD, rope)[:, :, self.start :]
        if name == "cls_attn":
            return scores.cls_attn(logits_BHN)
        if name == "cls_attn_v":
            return scores.cls_attn_v(logits_BHN, tower.reader_values(block, patches_BND))
        return getattr(scores, name)(logits_BHN, patches_BND)

    def _mean_key(self, patches_BND: Tensor) -> Tensor:
        # without rotary positions: the similarity of content must not depend on where it is
        tower = self.tower
        return tower.heads(self.block, tower.first_norm(self.block, patches_BND), "k")[0].mean(dim=1)

    def _summary(
        self, patches_BND: Tensor, score_BN: Tensor, kept_BK: Tensor, kept_BKD: Tensor, old_B1D: Tensor
    ) -> Tensor:
        is_first = old_B1D.shape[1] == 0
        if self.policy.summary == "mean_all" and is_first:
            new_B1D = patches_BND.mean(dim=1, keepdim=True)
        elif self.policy.summary == "score_mean":
            new_B1D = tokens.score_mean_of_dropped(patches_BND, score_BN, kept_BK)
        else:
            new_B1D = tokens.mean_of_dropped(patches_BND, kept_BKD)
        if not is_first:
            num_dropped_before = self.tower.num_patches - self.num_before
            new_B1D = tokens.blend(old_B1D, num_dropped_before, new_B1D, self.num_before - self.num_keep)
        if self.summary_offsets_LD is None:
            return new_B1D
        return new_B1D + self.summary_offsets_LD[self.number].to(new_B1D.dtype)


def rope_at(rope: Tensor, places_BN: Tensor, has_summary: bool) -> Tensor:
    """Rotary positions of the kept tokens, [B, 1 or H, T, 2E], from those of all patches, [N, 2E] or [H, N, 2E].

    The summary represents many places, so it has no position: it is not rotated, like the class token (sine 0,
    cosine 1).
    """
    kept = rope[places_BN].unsqueeze(1) if rope.dim() == 2 else rope[:, places_BN].transpose(0, 1)
    if not has_summary:
        return kept
    sine, cosine = torch.zeros_like(kept[:, :, :1]).chunk(2, dim=-1)
    return torch.cat([torch.cat([sine, cosine + 1], dim=-1), kept], dim=2)
