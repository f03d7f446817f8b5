"""Losses for training an adapter: the distance of the student from the teacher. Tensors in, a scalar out.

Shapes: B images per batch with one caption each, E embedding width. Embeddings have unit length; only the student's
carry gradients. The sum of losses follows CLIP-KD (Yang et al. 2023, arXiv 2307.12732): feature distillation,
similarity distillation, contrast against the teacher's other tower, and the task itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_loss(student_BE: Tensor, teacher_BE: Tensor) -> Tensor:
    """Mean of 1 - cosine between student and teacher."""
    return (1 - (student_BE * teacher_BE).sum(dim=1)).mean()


def similarity_loss(student_BB: Tensor, teacher_BB: Tensor) -> Tensor:
    """Mean over rows of logits of the KL divergence of the student's softmax from the teacher's."""
    student, teacher = student_BB.log_softmax(dim=1), teacher_BB.log_softmax(dim=1)
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean")


def contrastive_loss(logits_BB: Tensor) -> Tensor:
    """CLIP's loss on logits whose matching pairs are on the diagonal, averaged over both directions."""
    right = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, right) + F.cross_entropy(logits_BB.T, right)) / 2
