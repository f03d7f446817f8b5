"""Attach a pruning policy to an image tower, and take it off again.

The tower's own code runs; a hook before one block shortens the sequence. Nothing is copied or replaced, so a detached
tower is the tower it was. Supported so far: open_clip's `VisionTransformer` pooled by its class token.
"""

from collections.abc import Callable

from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from pipeline.errors import ConfigError, InputError
from pipeline.model.tokens import cut_tokens, l2_score
from pipeline.policy import PruningPolicy


def attach(tower: nn.Module, policy: PruningPolicy | None) -> Callable[[], None]:
    """Make `tower` prune by `policy` from now on.

    A keep ratio of 1 drops nothing, so that nothing needs a summary: the tower stays as it is.

    Args:
        tower: The image tower of an open_clip model.
        policy: What to prune; None leaves the tower as it is.

    Returns:
        `detach`, which undoes it; calling it twice is harmless.

    Raises:
        InputError: If this tower cannot be pruned, with the reason.
        ConfigError: If the policy keeps no token of this tower.
    """
    if policy is None:
        return lambda: None
    num_patches, num_blocks = tower_shape(tower)
    num_keep = policy.tokens_kept(num_patches)
    if num_keep < 1:
        raise ConfigError(
            f"keep_ratio {policy.keep_ratio:g} keeps none of {num_patches} patch tokens; "
            f"expected at least {1 / num_patches:.4f}"
        )
    if num_keep == num_patches:
        return lambda: None

    def shorten(block: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x_BTD, *rest = args
        return (cut_tokens(x_BTD, l2_score(x_BTD[:, 1:]), num_keep), *rest)

    handle = tower.transformer.resblocks[policy.cut_block(num_blocks)].register_forward_pre_hook(shorten)
    return handle.remove


def tower_shape(tower: nn.Module) -> tuple[int, int]:
    """Number of patch tokens and of blocks of a tower that can be pruned.

    Raises:
        InputError: If it cannot be pruned, with the reason.
    """
    reason = unprunable_reason(tower)
    if reason:
        raise InputError(f"this image tower cannot be pruned: {reason}; use --policy none")
    rows, columns = tower.grid_size
    return rows * columns, len(tower.transformer.resblocks)


def unprunable_reason(tower: nn.Module) -> str | None:
    """Why a tower cannot be pruned, None if it can."""
    if not isinstance(tower, VisionTransformer):
        return f"{type(tower).__name__} is not open_clip's VisionTransformer"
    if tower.attn_pool is not None or tower.pool_type != "tok":
        return "it is not pooled by its class token"
    return None
