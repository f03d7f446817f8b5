"""Attach a pruning policy to an image tower, and take it off again.

The tower's own code runs. Hooks before some blocks shorten the sequence, and a block's `forward` is replaced where it
has to do less (the last one, class token alone) or more (sizes in attention). A detached tower is the tower it was.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.model import scores, tokens
from pipeline.model.towers import Tower, attend_with_sizes, view_of
from pipeline.policy import PruningPolicy


def attach(module: nn.Module, policy: PruningPolicy | None) -> Callable[[], None]:
    """Make an image tower prune by `policy` from now on.

    Args:
        module: The image tower of an open_clip model. Two forward passes at a time are not supported.
        policy: What to prune; None leaves the tower as it is.

    Returns:
        `detach`, which undoes it; calling it twice is harmless.

    Raises:
        InputError: If this tower cannot be pruned, with the reason.
        ConfigError: If the policy does not fit this tower.
    """
    if policy is None:
        return lambda: None
    return _Pruner(view_of(module), policy).detach


class _Pruner:
    """A policy at work in a tower."""

    def __init__(self, tower: Tower, policy: PruningPolicy) -> None:
        self._tower, self._policy = tower, policy
        self._num_patches = tower.grid[0] * tower.grid[1]
        self._counts = policy.patches_per_block(self._num_patches, len(tower.blocks))
        self._sizes: Tensor | None = None  # [B, N] of the forward pass under way; float32
        self._undo: list[Callable[[], None]] = []
        _check_fit(policy, tower, self._counts)
        before = [self._num_patches, *self._counts]
        for number, block in enumerate(tower.blocks):
            if self._counts[number] < before[number]:
                hook = partial(self._shorten, number, before[number])
                self._undo.append(block.register_forward_pre_hook(hook).remove)
        last = len(tower.blocks) - 1
        for number in range(len(tower.blocks)):
            if self._has_sizes(number):
                self._replace_forward(tower.blocks[number], partial(self._attend, number))
        if policy.class_token_last and tower.reads_class_token_only:
            self._replace_forward(tower.blocks[last], partial(self._last_block, last))

    def detach(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _shorten(self, number: int, num_before: int, block: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x_BTD, *rest = args
        num_keep, prefix = self._counts[number], self._tower.num_prefix
        has_summary = self._policy.reduce == "summary" and num_before < self._num_patches
        start = prefix + has_summary
        patches_BND = x_BTD[:, start:]
        if num_before == self._num_patches:
            self._sizes = torch.ones(patches_BND.shape[:2], device=x_BTD.device)
        if self._policy.reduce == "bipartite":
            keys_BNE = self._tower.project(block, patches_BND, "key").mean(dim=1)
            kept, self._sizes = tokens.merge_pairs(patches_BND, self._sizes, keys_BNE, num_before - num_keep)
            return torch.cat([x_BTD[:, :prefix], kept], dim=1), *rest
        score_BN = self._score(block, x_BTD[:, :1], patches_BND)
        if self._policy.reduce == "merge":
            kept_BK, dropped_BM = tokens.split_by_score(patches_BND, score_BN, num_keep)
            kept, self._sizes = tokens.merge_into_kept(patches_BND, self._sizes, kept_BK, dropped_BM)
            return torch.cat([x_BTD[:, :prefix], kept], dim=1), *rest
        kept_BK = tokens.keep_indices(score_BN, num_keep)
        kept = tokens.take(patches_BND, kept_BK)
        parts = [x_BTD[:, :prefix], kept]
        if self._policy.reduce == "summary":
            old = x_BTD[:, prefix:start] if has_summary else None
            parts.insert(1, self._summary(patches_BND, score_BN, kept_BK, kept, old))
        return torch.cat(parts, dim=1), *rest

    def _summary(
        self, patches_BND: Tensor, score_BN: Tensor, kept_BK: Tensor, kept_BKD: Tensor, old_B1D: Tensor | None
    ) -> Tensor:
        if self._policy.summary == "mean_all" and old_B1D is None:
            return patches_BND.mean(dim=1, keepdim=True)
        if self._policy.summary == "score_mean":
            new_B1D = tokens.score_mean_of_dropped(patches_BND, score_BN, kept_BK)
        else:
            new_B1D = tokens.mean_of_dropped(patches_BND, kept_BKD)
        if old_B1D is None:
            return new_B1D
        num_before, num_keep = patches_BND.shape[1], kept_BKD.shape[1]
        return tokens.blend(old_B1D, self._num_patches - num_before, new_B1D, num_before - num_keep)

    def _score(self, block: nn.Module, class_B1D: Tensor, patches_BND: Tensor) -> Tensor:
        tower, name = self._tower, self._policy.score
        if name in ("l2", "l2_robust", "redundancy", "energy"):
            return getattr(scores, name)(patches_BND)
        if name == "random":
            return scores.random(*patches_BND.shape[:2], patches_BND.device)
        if name == "grid":
            return scores.grid(len(patches_BND), *tower.grid, patches_BND.device)
        if name == "clip_sem":
            return scores.clip_sem(tower.embed_tokens(class_B1D)[:, 0], tower.embed_tokens(patches_BND))
        keys_BHNE = tower.project(block, patches_BND, "key")
        if name == "key_norm":
            return scores.key_norm(keys_BHNE)
        query_BHE = tower.project(block, class_B1D, "query")[:, :, 0]
        if name == "cls_attn":
            return scores.cls_attn(query_BHE, keys_BHNE)
        if name in ("hybrid", "l2_cls"):
            return getattr(scores, name)(query_BHE, keys_BHNE, patches_BND)
        return scores.cls_attn_v(query_BHE, keys_BHNE, tower.project(block, patches_BND, "value"))

    def _attend(self, number: int, x_BTD: Tensor, *args: object, **kwargs: object) -> Tensor:
        return attend_with_sizes(self._tower.blocks[number], x_BTD, self._log_sizes(number, x_BTD))

    def _last_block(self, number: int, x_BTD: Tensor, *args: object, **kwargs: object) -> Tensor:
        log_sizes_BT = self._log_sizes(number, x_BTD) if self._has_sizes(number) else None
        return self._tower.class_token_block(self._tower.blocks[number], x_BTD, log_sizes_BT)

    def _has_sizes(self, number: int) -> bool:
        return self._policy.size_weight > 0 and self._counts[number] < self._num_patches

    def _log_sizes(self, number: int, x_BTD: Tensor) -> Tensor:
        """Size weight times log of how many patches each token of the sequence stands for, [B, T]."""
        prefix = self._tower.num_prefix
        sizes_BT = torch.ones(x_BTD.shape[:2], device=x_BTD.device)
        if self._policy.reduce == "summary":
            sizes_BT[:, prefix] = self._num_patches - self._counts[number]
        else:
            sizes_BT[:, prefix:] = self._sizes
        return self._policy.size_weight * sizes_BT.log()

    def _replace_forward(self, block: nn.Module, forward: Callable[..., Tensor]) -> None:
        # an attribute of the instance hides the method of the class; removing it brings the method back
        block.forward = forward
        self._undo.append(partial(vars(block).pop, "forward", None))


def _check_fit(policy: PruningPolicy, tower: Tower, counts: list[int]) -> None:
    if policy.score == "grid" and len(set(counts) - {tower.grid[0] * tower.grid[1]}) > 1:
        raise ConfigError(f"policy {policy.name!r}: score = 'grid' knows no order after a first cut; expected one cut")
    if policy.score == "clip_sem" and not tower.reads_class_token_only:
        raise ConfigError(f"policy {policy.name!r}: score = 'clip_sem' needs a tower pooled by its class token")
