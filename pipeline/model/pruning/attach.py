"""Attach a pruning policy to an image tower, and detach it again.

The tower's own code runs. Hooks before some blocks shorten the sequence. A block's `forward` is replaced where it must
do less (the last block computes only the class token; tokens bypass some blocks), more (sizes in attention), or the
same in less time (attention in bf16 on a CPU, the first convolution on a GPU). Detaching restores the tower exactly.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.model.pruning import tokens
from pipeline.model.pruning.cost import cuts_of, patches_per_block
from pipeline.model.pruning.cut import Cut, rope_at
from pipeline.model.pruning.policy import Bypass, PruningPolicy
from pipeline.model.pruning.tokens import Patches
from pipeline.model.towers import patchify
from pipeline.model.towers.families import view_of
from pipeline.model.towers.kernels import is_written_out, replacements
from pipeline.model.towers.parts import BlockRunner
from pipeline.model.towers.tower import Tower

WHOLE = PruningPolicy(name="whole", class_token_last=False)
"""Prunes nothing and skips nothing: the unpruned model, block by block."""

OnCut = Callable[[int, Tensor], None]
"""Called at every cut with the number of the block after it and the places of the kept patch tokens ([B, K])."""


def attach(
    module: nn.Module,
    policy: PruningPolicy | None,
    on_cut: OnCut | None = None,
    summary_offsets_LD: Tensor | None = None,
    counts: list[int] | None = None,
    runner: BlockRunner | None = None,
) -> Callable[[], None]:
    """Make an image tower prune its tokens by `policy`.

    Args:
        module: The image tower of an open_clip model. Concurrent forward passes are not supported.
        policy: What to prune; None leaves the tower unchanged.
        on_cut: Called at every cut, to visualise the kept tokens.
        summary_offsets_LD: Added to the summary token before each of L blocks; None adds nothing.
        counts: The result of `cost.patches_per_block` for the policy, if already known.
        runner: Computes the blocks in place of the tower; None computes them in the type of the weights.

    Returns:
        `detach`, which removes the policy; calling it twice is harmless.

    Raises:
        InputError: If this tower cannot be pruned; the message gives the reason.
        ConfigError: If the policy does not fit this tower.
    """
    if policy is None and runner is None:
        return lambda: None
    policy = policy or WHOLE
    tower = view_of(module)
    counts = counts or patches_per_block(tower, policy)
    pruner = _Pruner(tower, policy, counts, on_cut=on_cut, summary_offsets_LD=summary_offsets_LD, runner=runner)
    return pruner.detach


class _Pruner:
    """A policy attached to a tower."""

    def __init__(
        self,
        tower: Tower,
        policy: PruningPolicy,
        counts: list[int],
        *,
        on_cut: OnCut | None,
        summary_offsets_LD: Tensor | None,
        runner: BlockRunner | None,
    ) -> None:
        self._tower, self._policy, self._on_cut = tower, policy, on_cut
        self._counts = counts
        self._cuts = {cut.number: cut for cut in cuts_of(tower, policy, self._counts, summary_offsets_LD)}
        self._patches: tuple[Tensor, Tensor] | None = None  # sizes and places in the current forward pass
        self._undo: list[Callable[[], None]] = []
        weight = next(parameter for parameter in tower.module.parameters() if parameter.dim() == 4)
        # keep a block's own forward where ours is no faster
        self._is_written_out = runner is not None or is_written_out(tower, weight.device, weight.dtype)
        self._runner = runner or tower
        self._replace_modules(weight.device, weight.dtype)
        bypasses, last = isinstance(policy.schedule, Bypass), len(tower.blocks) - 1
        for number, block in enumerate(tower.blocks):
            is_short = self._counts[number] < tower.num_patches
            if is_short and bypasses:
                self._replace_forward(block, partial(self._bypass, number))
                continue
            if is_short:
                hook = partial(self._enter, number)
                self._undo.append(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
            if self._is_class_only(number):
                self._replace_forward(block, partial(self._class_token, number))
            elif self._has_sizes(number) or self._is_written_out:
                self._replace_forward(block, partial(self._run_block, number))
        if tower.pool is not None and self._has_sizes(last):
            self._replace_forward(tower.pool, self._pool)

    def detach(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _enter(
        self, number: int, block: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        x_BTD, full_rope = args[0], kwargs.get("rope")
        cut = self._cuts.get(number)
        if cut:
            x_BTD = self._cut(cut, x_BTD, full_rope)
        if full_rope is not None:
            kwargs = kwargs | {"rope": self._rope(full_rope)}
        return (x_BTD, *args[1:]), kwargs

    def _cut(self, cut: Cut, x_BTD: Tensor, full_rope: Tensor | None) -> Tensor:
        x_BND, is_first = x_BTD[:, cut.start :], cut.num_before == self._tower.num_patches
        patches = Patches.all_of(x_BND) if is_first else Patches(x_BND, *self._patches)
        rope = full_rope if is_first or full_rope is None else self._rope(full_rope)
        x_BTD, patches = cut(x_BTD, patches, rope)
        self._patches = patches.sizes_BN, patches.places_BN
        if self._on_cut:
            self._on_cut(cut.number, patches.places_BN)
        return x_BTD

    def _rope(self, full_rope: Tensor) -> Tensor:
        return rope_at(full_rope, self._patches[1], self._policy.reduce == "summary")

    def _run_block(self, number: int, x_BTD: Tensor, *args: object, **kwargs: Any) -> Tensor:
        log_sizes_BT = self._log_sizes(number, x_BTD) if self._has_sizes(number) else None
        return self._runner.run_block(self._tower.blocks[number], x_BTD, log_sizes_BT, kwargs.get("rope"))

    def _class_token(self, number: int, x_BTD: Tensor, *args: object, **kwargs: Any) -> Tensor:
        log_sizes_BT = self._log_sizes(number, x_BTD) if self._has_sizes(number) else None
        return self._runner.class_token_block(self._tower.blocks[number], x_BTD, log_sizes_BT, kwargs.get("rope"))

    def _bypass(self, number: int, x_BTD: Tensor, *args: object, **kwargs: Any) -> Tensor:
        """Run the block on the best patch tokens only; the others bypass it."""
        cut, full_rope, prefix = self._cuts[number], kwargs.get("rope"), self._tower.num_prefix
        patches = Patches.all_of(x_BTD[:, prefix:])
        kept_BK = tokens.keep_indices(cut.score(x_BTD, patches, full_rope), cut.num_keep)
        if self._on_cut:
            self._on_cut(number, kept_BK)
        short_BTD = torch.cat([x_BTD[:, :prefix], tokens.take(patches.x_BND, kept_BK)], dim=1)
        if full_rope is not None:
            kwargs = kwargs | {"rope": rope_at(full_rope, kept_BK, has_summary=False)}
        if self._is_class_only(number):
            return self._runner.class_token_block(cut.block, short_BTD, None, kwargs.get("rope"))
        if self._is_written_out:
            short_BTD = self._runner.run_block(cut.block, short_BTD, None, kwargs.get("rope"))
        else:
            short_BTD = type(cut.block).forward(cut.block, short_BTD, *args, **kwargs)
        return torch.cat([short_BTD[:, :prefix], tokens.put(patches.x_BND, kept_BK, short_BTD[:, prefix:])], dim=1)

    def _has_sizes(self, number: int) -> bool:
        return self._policy.size_weight > 0 and self._counts[number] < self._tower.num_patches

    def _is_class_only(self, number: int) -> bool:
        is_last = number == len(self._tower.blocks) - 1
        return is_last and self._policy.class_token_last and self._tower.reads_class_token_only

    def _pool(self, x_BTD: Tensor, *args: object, **kwargs: object) -> Tensor:
        last = len(self._tower.blocks) - 1
        return self._tower.pool_with_sizes(x_BTD, self._log_sizes(last, x_BTD))

    def _log_sizes(self, number: int, x_BTD: Tensor) -> Tensor:
        """Size weight times the log of the number of patches that each token represents, [B, T]."""
        sizes_BN, _ = self._patches
        if self._policy.reduce == "summary":
            sizes_BN = torch.ones_like(sizes_BN[:, :1]) * (self._tower.num_patches - self._counts[number])
            kept = torch.ones(x_BTD.shape[0], self._counts[number], device=x_BTD.device)
            sizes_BN = torch.cat([sizes_BN, kept], dim=1)
        log_BN = self._policy.size_weight * sizes_BN.log()
        return nn.functional.pad(log_BN, (self._tower.num_prefix, 0))

    def _replace_modules(self, device: torch.device, dtype: torch.dtype) -> None:
        for block in self._tower.blocks:
            for module, forward in replacements(self._tower, block, device, dtype):
                self._replace_forward(module, forward)
        if device.type == "cuda":
            for module in filter(patchify.is_product, self._tower.stem.modules()):
                self._replace_forward(module, partial(patchify.conv_forward, module))

    def _replace_forward(self, module: nn.Module, forward: Callable[..., Tensor]) -> None:
        # an instance attribute hides the method of the class; removing it restores the method
        module.forward = forward
        self._undo.append(partial(vars(module).pop, "forward", None))
