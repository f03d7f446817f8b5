"""Importance of patch tokens: tensors in, a float32 score [B, N] out; higher scores are kept. Imports only torch.

Shapes: B images, N patch tokens, D width, H heads, E head width. Tokens are the states entering a block, before its
norm. Logits belong to the reader of the image: the class token, or the queries of an attention pool if there is no
class token.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

OUTLIER_MADS = 6.0
"""A token whose norm is more than this many median absolute deviations above the median is a register, not content."""


def l2(patches_BND: Tensor) -> Tensor:
    """Norm of the token (the reference method)."""
    return torch.linalg.vector_norm(patches_BND, dim=-1, dtype=torch.float32)


def l2_robust(patches_BND: Tensor) -> Tensor:
    """Norm of the token, with outliers always kept.

    High-norm "register" tokens carry global state in the middle of a ViT (Darcet et al. 2023, arXiv 2309.16588). They
    must stay, and must not be scored as content.
    """
    return pin_outliers(l2(patches_BND), l2(patches_BND))


def pin_outliers(score_BN: Tensor, norm_BN: Tensor) -> Tensor:
    """Score tokens with outlying norms above all others."""
    median_B1 = norm_BN.median(dim=1, keepdim=True).values
    spread_B1 = (norm_BN - median_B1).abs().median(dim=1, keepdim=True).values
    return score_BN.masked_fill(norm_BN > median_B1 + OUTLIER_MADS * spread_B1, torch.inf)


def cls_attn(logits_BHN: Tensor) -> Tensor:
    """Attention from the class token to each patch, mean over heads: one row, not the N x N matrix."""
    return logits_BHN.softmax(dim=-1).mean(dim=1)


def cls_attn_v(logits_BHN: Tensor, values_BHNE: Tensor) -> Tensor:
    """Class attention times the norm of the value, summed over heads."""
    lengths_BHN = torch.linalg.vector_norm(values_BHNE, dim=-1, dtype=torch.float32)
    return (logits_BHN.softmax(dim=-1) * lengths_BHN).sum(dim=1)


def l2_cls(logits_BHN: Tensor, patches_BND: Tensor) -> Tensor:
    """The better of a token's ranks by norm and by class attention: a token that either ranks high is kept.

    The other rank breaks ties, which are common.
    """
    by_norm_BN, by_attention_BN = _ranks(l2(patches_BND)), _ranks(cls_attn(logits_BHN))
    other_BN = torch.minimum(by_norm_BN, by_attention_BN)
    return torch.maximum(by_norm_BN, by_attention_BN) + other_BN / patches_BND.shape[1]


def key_norm(mean_key_BNE: Tensor) -> Tensor:
    """Negative norm of the mean key over heads (low key norms attract attention, arXiv 2406.11430)."""
    return -torch.linalg.vector_norm(mean_key_BNE, dim=-1, dtype=torch.float32)


def redundancy(patches_BND: Tensor) -> Tensor:
    """Negative cosine to the most similar other patch: duplicates go first."""
    return -_nearest_cosine(patches_BND)


def energy(patches_BND: Tensor, margin: float) -> Tensor:
    """Negative energy of PiToMe (Tran et al. 2024, arXiv 2405.16148): isolated tokens are kept.

    E_i = mean_j f(cos_ij) with f(t) = t - m for t >= m, else exp(t - m) - 1: tokens above the margin m are neighbours.
    """
    excess_BNN = _cosines(patches_BND).float() - margin
    return -torch.where(excess_BNN >= 0, excess_BNN, excess_BNN.exp() - 1).mean(dim=-1)


def hybrid(logits_BHN: Tensor, patches_BND: Tensor) -> Tensor:
    """Class attention times non-redundancy."""
    return cls_attn(logits_BHN) * (1 - _nearest_cosine(patches_BND).clamp(min=0))


def clip_sem(class_BE: Tensor, patches_BNE: Tensor) -> Tensor:
    """Cosine between each patch and the class token, both projected to the embedding space."""
    return F.cosine_similarity(class_BE.unsqueeze(1).float(), patches_BNE.float(), dim=-1)


def random(num_images: int, num_patches: int, device: torch.device, seed: int = 0) -> Tensor:
    """A control without information, identical in every run: each slot of a batch has its own fixed order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_images, num_patches, generator=generator).to(device)


def grid(places_BN: Tensor, rows: int, columns: int) -> Tensor:
    """A control that spreads evenly: any number of best patches covers the image (R2 low-discrepancy sequence)."""
    row, column = torch.arange(rows).unsqueeze(1), torch.arange(columns).unsqueeze(0)
    # steps of the plastic number, Roberts 2018
    order = (row * 0.7548776662 + column * 0.5698402910) % 1.0
    return order.flatten().to(places_BN.device)[places_BN]


def _ranks(score_BN: Tensor) -> Tensor:
    """Ranks from 0 for the smallest to N - 1. On a CPU, topk sorts short rows several times faster than sort."""
    num_tokens = score_BN.shape[1]
    places_BN = torch.arange(num_tokens - 1, -1, -1, dtype=torch.float32, device=score_BN.device).expand_as(score_BN)
    return torch.empty_like(score_BN).scatter_(1, score_BN.topk(num_tokens, dim=1).indices, places_BN)


def _cosines(patches_BND: Tensor) -> Tensor:
    unit_BND = F.normalize(patches_BND, dim=-1)
    return unit_BND @ unit_BND.transpose(1, 2)


def _nearest_cosine(patches_BND: Tensor) -> Tensor:
    cosines_BNN = _cosines(patches_BND).float()
    cosines_BNN.diagonal(dim1=1, dim2=2).fill_(-1)
    return cosines_BNN.amax(dim=-1)
