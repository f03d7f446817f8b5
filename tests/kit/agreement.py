"""Whether two computations of a pruned tower agree, for example on a GPU and on a CPU.

`l2_cls` can score two patches equally. If only one of them fits, each device may keep the one it likes; later tokens
then differ, and so does the embedding. Everything else must agree: the patches that are kept, and the embeddings.
"""

from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import LoadedModel
from pipeline.model.pruning.cut import Cut
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.pruning.tokens import Patches

SAME_PATCHES = 0.9999
"""The smallest cosine between two embeddings of an image whose kept patches are the same."""

OTHER_PATCHES = 0.999
"""The smallest cosine where equal scores were decided differently; 0.99985 was seen."""

ROUNDING = 1e-5
"""Scores are equal if they differ by less than this share; the scores of `l2_cls` are equal or differ by more."""


@dataclass
class Computed:
    """What one encoder made of B images: embeddings and, for each cut, what was kept and why."""

    embeddings_BE: np.ndarray
    kept: dict[int, Tensor] = field(default_factory=dict)
    """By the number of the block after the cut: whether each patch was kept, bool [B, N]."""

    scores: dict[int, Tensor] = field(default_factory=dict)
    """The same for the score of each patch, [B, N]; -inf for those that earlier cuts took."""


def compute(loaded: LoadedModel, policy: PruningPolicy | None, pixels_BHWC: np.ndarray) -> Computed:
    """Embed images, and note what each cut kept."""
    result = Computed(np.empty(0))
    own_score = Cut.score

    def score(cut: Cut, x_BTD: Tensor, patches: Patches, rope: Tensor | None) -> Tensor:
        score_BN = own_score(cut, x_BTD, patches, rope)
        gone = torch.full((len(x_BTD), cut.tower.num_patches), -torch.inf)
        result.scores[cut.number] = gone.scatter(1, patches.places_BN.cpu(), score_BN.cpu())
        return score_BN

    def note(number: int, places_BK: Tensor) -> None:
        none = torch.zeros(result.scores[number].shape, dtype=torch.bool)
        result.kept[number] = none.scatter(1, places_BK.cpu(), True)

    encoder = Encoder(sharing_weights(loaded), policy, note)
    with patch.object(Cut, "score", score):
        result.embeddings_BE = encoder.encode(pixels_BHWC)
    return result


def decided_differently(some: Computed, others: Computed) -> list[int]:
    """The images of which equal scores let other patches be kept.

    Raises:
        AssertionError: If an image has other patches although its scores decide; or if embeddings are too far apart.
    """
    assert some.kept.keys() == others.kept.keys()
    images: set[int] = set()
    for number in sorted(some.kept):
        kept, score = some.kept[number], some.scores[number]
        differs = kept != others.kept[number]
        new = set(differs.any(dim=1).nonzero().flatten().tolist()) - images
        lowest_B1 = score.masked_fill(~kept, torch.inf).amin(dim=1, keepdim=True)
        is_tied = (score - lowest_B1).abs() <= ROUNDING * lowest_B1.abs()
        for image in new:
            assert is_tied[image][differs[image]].all(), (
                f"image {image}, cut before block {number}: other patches are kept, and their scores are not equal: "
                f"{score[image][differs[image]].tolist()}, the lowest kept {lowest_B1[image].item()}"
            )
        images |= new
    cosines = (some.embeddings_BE * others.embeddings_BE).sum(axis=1)
    for image, cosine in enumerate(cosines):
        bound = OTHER_PATCHES if image in images else SAME_PATCHES
        assert cosine > bound, f"image {image}: cosine {cosine}, expected more than {bound}"
    return sorted(images)
