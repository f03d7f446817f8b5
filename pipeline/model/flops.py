"""Multiply-adds of an image tower under a policy, by formula. Counts matrix products, as `torch.utils.flop_counter`.

Per block with a tokens, width d and MLP width m: 4 a d^2 (query, key, value, output) + 2 a^2 d (attention) + 2 a d m
(MLP). In a last block that computes the class token alone, keys and values of all tokens and the rest of one. Scores
and merges are counted where they multiply matrices; norms, softmax and means are not: they are no matrix products.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.model.prune import attach
from pipeline.model.towers import Tower, unprunable_reason, view_of
from pipeline.policy import PruningPolicy


@dataclass(frozen=True, slots=True)
class BlockCost:
    """One block: patch tokens it works on, length of its sequence, multiply-adds of the block and of its cut."""

    num_patches: int
    num_tokens: int
    macs: int
    cut_macs: int


def gmacs_per_image(module: nn.Module, policy: PruningPolicy | None, image_size: tuple[int, int]) -> float:
    """Cost of one image in 1e9 multiply-adds (half of what is printed as GFLOPs).

    Args:
        module: The image tower, bare (`policy` is not looked up on it).
        policy: The policy to account for; None for the unpruned tower.
        image_size: Height and width in pixels; used where the tower's cost is counted instead of computed.
    """
    if unprunable_reason(module) or not view_of(module).reads_class_token_only:
        return _counted_gmacs(module, policy, image_size)
    tower = view_of(module)
    width, num_patches = module.conv1.out_channels, tower.grid[0] * tower.grid[1]
    macs = num_patches * module.conv1.weight[0].numel() * width
    macs += sum(cost.macs + cost.cut_macs for cost in block_costs(tower, policy))
    return (macs + (0 if module.proj is None else module.proj.numel())) / 1e9


def block_costs(tower: Tower, policy: PruningPolicy | None) -> list[BlockCost]:
    """Tokens and multiply-adds of each block under a policy."""
    all_patches, num_blocks = tower.grid[0] * tower.grid[1], len(tower.blocks)
    counts = policy.patches_per_block(all_patches, num_blocks) if policy else [all_patches] * num_blocks
    costs = []
    for number, (before, count) in enumerate(zip([all_patches, *counts], counts, strict=False)):
        has_summary = policy is not None and policy.reduce == "summary" and count < all_patches
        length = tower.num_prefix + has_summary + count
        class_only = policy is not None and policy.class_token_last and number == num_blocks - 1
        macs = _block_macs(tower, length, class_only and tower.reads_class_token_only)
        costs.append(BlockCost(count, length, macs, _cut_macs(tower, policy, before, count) if count < before else 0))
    return costs


def _block_macs(tower: Tower, length: int, class_only: bool) -> int:
    width = tower.module.conv1.out_channels
    mlp_width = tower.blocks[0].mlp.c_fc.out_features
    if class_only:
        return 2 * length * width**2 + 2 * width**2 + 2 * length * width + 2 * width * mlp_width
    return length * (4 * width**2 + 2 * width * mlp_width) + 2 * length**2 * width


def _cut_macs(tower: Tower, policy: PruningPolicy, before: int, count: int) -> int:
    width, heads = tower.module.conv1.out_channels, tower.blocks[0].attn.num_heads
    keys = before * width**2
    if policy.reduce == "bipartite":
        return keys + (before // 2) * ((before + 1) // 2) * (width // heads) + (before - count) * (before // 2) * width
    similar = before**2 * width
    row = width**2 + before * width
    macs = {
        "redundancy": similar,
        "energy": similar,
        "key_norm": keys,
        "cls_attn": keys + row,
        "l2_cls": keys + row,
        "cls_attn_v": 2 * keys + row,
        "hybrid": keys + row + similar,
        "clip_sem": 0 if tower.module.proj is None else (before + 1) * tower.module.proj.numel(),
    }.get(policy.score, 0)
    if policy.reduce == "merge":
        macs += 2 * (before - count) * count * width
    if policy.reduce == "summary" and policy.summary == "score_mean":
        macs += before * width
    return macs


def _counted_gmacs(module: nn.Module, policy: PruningPolicy | None, image_size: tuple[int, int]) -> float:
    detach = attach(module, policy)
    parameter = next(p for p in module.parameters() if p.dim() == 4)  # norms may have another type
    image = torch.zeros(1, 3, *image_size, dtype=parameter.dtype, device=parameter.device)
    fused = torch.backends.mha.get_fastpath_enabled()
    # the counter sees neither the fused multi-head kernel nor, in older versions of torch, the CPU's fused attention
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        detach()
    return counter.get_total_flops() / 2e9
