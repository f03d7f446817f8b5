"""Multiply-adds of an image tower under a policy, by formula. Counts matrix products, as `torch.utils.flop_counter`.

Per block with a tokens, width d and MLP width m: a * 4d^2 (query, key, value, output) + 2 a^2 d (attention) +
2 a d m (MLP). Norms, softmax, scores and the cut itself are left out: they are no matrix products.
"""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.model.prune import tower_shape, unprunable_reason
from pipeline.policy import PruningPolicy


def gmacs_per_image(tower: nn.Module, policy: PruningPolicy | None, image_size: tuple[int, int]) -> float:
    """Cost of one image in 1e9 multiply-adds (half of what is printed as GFLOPs).

    Args:
        tower: The image tower, bare (`policy` is not looked up on it).
        policy: The policy to account for; None for the unpruned tower.
        image_size: Height and width in pixels; used where the tower's cost is counted instead of computed.
    """
    if unprunable_reason(tower):
        return _counted_gmacs(tower, image_size)
    num_patches, num_blocks = tower_shape(tower)
    width = tower.conv1.out_channels
    mlp_width = tower.transformer.resblocks[0].mlp.c_fc.out_features
    macs = num_patches * tower.conv1.weight[0].numel() * width
    for num_tokens in tokens_per_block(policy, num_patches, num_blocks):
        macs += num_tokens * (4 * width**2 + 2 * width * mlp_width) + 2 * num_tokens**2 * width
    if tower.proj is not None:
        macs += tower.proj.numel()
    return macs / 1e9


def tokens_per_block(policy: PruningPolicy | None, num_patches: int, num_blocks: int) -> list[int]:
    """Length of the sequence in each block, class and summary token included."""
    full = num_patches + 1
    if policy is None or policy.tokens_kept(num_patches) == num_patches:
        return [full] * num_blocks
    block = policy.cut_block(num_blocks)
    return [full] * block + [policy.tokens_kept(num_patches) + 2] * (num_blocks - block)


def _counted_gmacs(tower: nn.Module, image_size: tuple[int, int]) -> float:
    parameter = next(p for p in tower.parameters() if p.dim() == 4)  # norms may have another type
    image = torch.zeros(1, 3, *image_size, dtype=parameter.dtype, device=parameter.device)
    fused = torch.backends.mha.get_fastpath_enabled()
    # the counter sees neither the fused multi-head kernel nor, in older versions of torch, the CPU's fused attention
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            tower(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() / 2e9
