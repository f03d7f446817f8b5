"""Token maths of pruning: tensors in, tensors out. Imports torch and nothing else.

Shapes: B images, T tokens (the class token first), N patch tokens, K kept patch tokens, D width.
"""

import torch
from torch import Tensor


def l2_score(patches_BND: Tensor) -> Tensor:
    """Importance of each patch token as its L2 norm over the width; [B, N] float32, larger is kept."""
    return torch.linalg.vector_norm(patches_BND, dim=-1, dtype=torch.float32)


def cut_tokens(x_BTD: Tensor, score_BN: Tensor, num_keep: int) -> Tensor:
    """Keep the class token and the best patch tokens; a summary token stands for what is dropped.

    The summary is the mean over all N patch tokens before the cut. Kept tokens come in no particular order: their
    positions are already added, and attention does not see order.

    Args:
        x_BTD: Token states entering a block, class token first; T = 1 + N.
        score_BN: Importance of each patch token, larger is kept.
        num_keep: Patch tokens kept per image, 1 <= num_keep <= N; equal for all images, so that shapes are static.

    Returns:
        [B, 2 + num_keep, D]: class token, summary, kept tokens.

    Raises:
        ValueError: If `num_keep` is out of range or the shapes disagree.
    """
    num_images, num_tokens, width = x_BTD.shape
    num_patches = num_tokens - 1
    if not 1 <= num_keep <= num_patches:
        raise ValueError(f"num_keep is {num_keep}, expected 1 to {num_patches}")
    if score_BN.shape != (num_images, num_patches):
        raise ValueError(f"score has shape {tuple(score_BN.shape)}, expected {(num_images, num_patches)}")
    patches_BND = x_BTD[:, 1:]
    kept_BK = score_BN.topk(num_keep, dim=1, sorted=False).indices
    kept_BKD = patches_BND.gather(1, kept_BK.unsqueeze(-1).expand(-1, -1, width))
    summary_B1D = patches_BND.mean(dim=1, keepdim=True)
    return torch.cat([x_BTD[:, :1], summary_B1D, kept_BKD], dim=1)
