"""Multiply-adds of an image tower with a policy, block by block, and the schedule that reaches a target cost.

Only matrix products count, as in `torch.utils.flop_counter`: norms, softmax and means do not. A block with a tokens,
W weights in its matrices and attention width A costs a W + 2 a^2 A. A last block that computes only the class token
needs keys and values for all tokens, and everything else for one. Torch's own counter counts the rest (patch
embedding, cuts, pooling) on tensors without data.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.errors import ConfigError
from pipeline.model.pruning.cut import Cut
from pipeline.model.pruning.policy import Bypass, PruningPolicy
from pipeline.model.pruning.tokens import Patches
from pipeline.model.towers.families import unprunable_reason, view_of
from pipeline.model.towers.tower import Tower

_BISECTIONS = 20
_MAX_POWER = 64.0
_LAYERS = (torch.ops.aten.convolution, torch.ops.aten.mm, torch.ops.aten.addmm)


@dataclass(frozen=True, slots=True)
class BlockCost:
    """One block: its number of patch tokens, its sequence length, and the multiply-adds of the block and its cut."""

    num_patches: int
    num_tokens: int
    macs: int
    cut_macs: int


def gmacs_per_image(
    module: nn.Module, policy: PruningPolicy | None, image_size: tuple[int, int], counts: list[int] | None = None
) -> float:
    """Cost of one image in 1e9 multiply-adds (half of the usual GFLOPs figure).

    Args:
        module: The image tower, with no policy attached.
        policy: The policy to count; None for the unpruned tower.
        image_size: Height and width in pixels; only used for towers that cannot be pruned.
        counts: The result of `patches_per_block`, if already known.

    Raises:
        InputError: If there is a policy and the tower cannot be pruned.
        ConfigError: If the policy does not fit the tower.
    """
    module = without_data(module)
    if policy is None and unprunable_reason(module):
        return _counted(module, module, 1, 3, *image_size) / 1e9
    tower = view_of(module)
    return _total_macs(tower, policy, counts or patches_per_block(tower, policy)) / 1e9


def block_costs(tower: Tower, policy: PruningPolicy | None) -> list[BlockCost]:
    """Tokens and multiply-adds of each block with a policy."""
    return _costs(view_of(without_data(tower.module)), policy, patches_per_block(tower, policy))


def patches_per_block(tower: Tower, policy: PruningPolicy | None) -> list[int]:
    """Number of patch tokens in each block; solves the schedule for the policy's `gmac_ratio`, if it has one.

    Raises:
        ConfigError: If a block would have no patch tokens left, or the schedule cannot reach the ratio.
    """
    num_patches, num_blocks = tower.num_patches, len(tower.blocks)
    if policy is None:
        return [num_patches] * num_blocks
    if policy.gmac_ratio is None:
        return policy.patches_per_block(num_patches, num_blocks)
    tower = view_of(without_data(tower.module))
    unpruned_macs = _total_macs(tower, None, [num_patches] * num_blocks)

    def ratio(power: float) -> float:
        counts = policy.patches_per_block(num_patches, num_blocks, power)
        return unpruned_macs / _total_macs(tower, policy, counts)

    low, high = 0.0, _feasible_power(policy, num_patches, num_blocks)
    if ratio(high) < policy.gmac_ratio:
        raise ConfigError(
            f"gmac_ratio = {policy.gmac_ratio:g}: policy {policy.name!r} reaches at most {ratio(high):.3g} on this "
            f"tower ({num_patches} patch tokens, {num_blocks} blocks); lower the ratio, or cut earlier"
        )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if ratio(middle) >= policy.gmac_ratio else (middle, high)
    return policy.patches_per_block(num_patches, num_blocks, high)


def _feasible_power(policy: PruningPolicy, num_patches: int, num_blocks: int) -> float:
    """The largest power that leaves every block at least one patch token."""
    low, high = 0.0, _MAX_POWER
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        try:
            policy.patches_per_block(num_patches, num_blocks, middle)
            low = middle
        except ConfigError:
            high = middle
    return low


def cuts_of(
    tower: Tower, policy: PruningPolicy, counts: list[int], summary_offsets_LD: Tensor | None = None
) -> list[Cut]:
    """The cuts of a policy, given its patches per block; with a bypass, every block cuts the full sequence."""
    bypasses = isinstance(policy.schedule, Bypass)
    cuts = []
    for number, (before, count) in enumerate(pairwise([tower.num_patches, *counts])):
        before = tower.num_patches if bypasses else before
        if count < before:
            cuts.append(
                Cut(
                    tower=tower,
                    policy=policy,
                    number=number,
                    num_before=before,
                    num_keep=count,
                    summary_offsets_LD=summary_offsets_LD,
                )
            )
    return cuts


def _costs(tower: Tower, policy: PruningPolicy | None, counts: list[int]) -> list[BlockCost]:
    cut_macs = {cut.number: _cut_macs(cut) for cut in cuts_of(tower, policy, counts)} if policy else {}
    last = len(counts) - 1
    costs = []
    for number, (block, count) in enumerate(zip(tower.blocks, counts, strict=True)):
        has_summary = policy is not None and policy.reduce == "summary" and count < tower.num_patches
        length = tower.num_prefix + has_summary + count
        class_only = policy is not None and policy.class_token_last and tower.reads_class_token_only
        macs = _block_macs(tower, block, length, 1 if class_only and number == last else length)
        costs.append(BlockCost(count, length, macs, cut_macs.get(number, 0)))
    return costs


def _block_macs(tower: Tower, block: nn.Module, length: int, num_queries: int) -> int:
    """Multiply-adds of a block that reads `length` tokens and computes `num_queries` of them."""
    weights = sum(parameter.numel() for parameter in block.parameters() if parameter.dim() == 2)
    attention_width = tower.num_heads * tower.head_width
    keys_and_values = 2 * tower.width * attention_width
    return (
        length * keys_and_values
        + num_queries * (weights - keys_and_values)
        + 2 * length * num_queries * attention_width
    )


def _cut_macs(cut: Cut) -> int:
    tower, bypasses = cut.tower, isinstance(cut.policy.schedule, Bypass)

    def run(x_BTD: Tensor) -> None:
        patches = Patches.all_of(x_BTD[:, cut.start :])
        cut.score(x_BTD, patches, None) if bypasses else cut(x_BTD, patches, None)

    return _counted(run, tower.module, 1, cut.start + cut.num_before, tower.width)


def _total_macs(tower: Tower, policy: PruningPolicy | None, counts: list[int]) -> int:
    costs = _costs(tower, policy, counts)
    bypasses = policy is not None and isinstance(policy.schedule, Bypass)
    last_length = tower.num_prefix + tower.num_patches if bypasses else costs[-1].num_tokens
    stem_macs = _counted(tower.stem, tower.module, 1, 3, *tower.image_size)
    head_macs = _counted(tower.head, tower.module, 1, last_length, tower.width)
    return stem_macs + head_macs + sum(cost.macs + cost.cut_macs for cost in costs)


def layer_macs(module: nn.Module, image_size: tuple[int, int]) -> int:
    """Multiply-adds of one image in the layers of an unpruned tower that have weights: all but those of attention.

    `module` has no data; see `without_data`.
    """
    counts = _counter(module, module, 1, 3, *image_size).get_flop_counts()["Global"]
    return sum(count for operator, count in counts.items() if operator in _LAYERS) // 2


def _counted(run: Callable[[Tensor], object], module: nn.Module, *shape: int) -> int:
    """Multiply-adds of `run` on a tensor of the given shape; `module` has no data and sets the type."""
    return _counter(run, module, *shape).get_total_flops() // 2


def _counter(run: Callable[[Tensor], object], module: nn.Module, *shape: int) -> FlopCounterMode:
    parameter = next(parameter for parameter in module.parameters() if parameter.dim() == 4)  # norms may differ in type
    fused = torch.backends.mha.get_fastpath_enabled()
    # the counter misses the fused multi-head kernel and, in older versions of torch, the CPU's fused attention
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run(torch.empty(*shape, dtype=parameter.dtype, device="meta"))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter


def without_data(module: nn.Module) -> nn.Module:
    """A copy on the meta device: only shapes and types, so that counting computes nothing."""
    memo: dict[int, Tensor] = {}
    for tensor in chain(module.parameters(), module.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(module, memo)
