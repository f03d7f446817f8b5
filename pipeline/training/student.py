"""A model in training: its weights are the loaded ones plus a fusion's updates, and its image tower is pruned.

The module itself never changes. Each forward pass receives the updated weights in the precision in which they will be
merged, so that training matches inference. Each cost has its own copy of the module; the copies share all other
weights.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.model.adapter.config import FusionConfig
from pipeline.model.adapter.fusion import Fusion
from pipeline.model.device import DTYPES
from pipeline.model.encode import sharing_weights
from pipeline.model.load import LoadedModel
from pipeline.model.pruning.attach import attach
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.towers.families import view_of
from pipeline.model.transform import PixelScaling

Weights = dict[str, Tensor]
"""Replacements for a module's own weights, by their names in `_Calls`."""


class Student(nn.Module):
    """A fusion in training. Its parameters are the fusion's, plus summary offsets if a policy makes summaries."""

    def __init__(
        self,
        *,
        loaded: LoadedModel,
        reference: LoadedModel,
        policies: Sequence[PruningPolicy],
        config: FusionConfig,
        seed: int,
    ) -> None:
        """Attach each policy to its own copy of the model.

        Args:
            loaded: The model in the precision to run in; it is not changed.
            reference: The same model on the CPU in float32; updates are added to its weights.
            policies: One per cost; `policy` arguments below are indices into this sequence.
            config: What to update.
            seed: Seed for the fusion.
        """
        super().__init__()
        device = loaded.device
        self.fusion = Fusion(reference.clip, config, seed).to(device)
        tower = view_of(loaded.clip.visual)
        makes_summaries = any(policy.schedule and policy.reduce == "summary" for policy in policies)
        offsets = nn.Parameter(torch.zeros(len(tower.blocks), tower.width, device=device)) if makes_summaries else None
        self.summary_offsets_LD = offsets
        names = {site.weight for site in self.fusion.sites}
        self._base = {name: reference.clip.get_parameter(name).detach().to(device) for name in sorted(names)}
        self._dtype = DTYPES[loaded.spec.precision]
        self._scaling = PixelScaling(loaded.spec.preprocess, device, self._dtype)
        self._device = device
        copies = [sharing_weights(loaded, is_frozen=True).clip for _ in policies]
        for clip, policy in zip(copies, policies, strict=True):
            attach(clip.visual, policy, None, offsets)
        self._calls = [_Calls(clip) for clip in copies]  # not a ModuleList, which would register their parameters

    @property
    def num_policies(self) -> int:
        """Number of policies to choose from."""
        return len(self._calls)

    @property
    def updates_text(self) -> bool:
        """Whether the text tower is updated too."""
        return self.fusion.config.variant != "image-only"

    def trainable(self) -> list[nn.Parameter]:
        """The parameters to train."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def weights(self) -> Weights:
        """The updated weights; call again after each step."""
        updates = self.fusion.updates()
        # norms may have another type than the rest, but updated matrices never do
        return {f"clip.{name}": (base + updates[name]).to(self._dtype) for name, base in self._base.items()}

    def encode_images(self, weights: Weights, pixels_BHWC: np.ndarray, policy: int) -> Tensor:
        """Unit embeddings [B, E] of uint8 pixels with one of the policies."""
        pixels = self._scaling(torch.from_numpy(pixels_BHWC).to(self._device, non_blocking=True))
        return self._unit(functional_call(self._calls[policy], weights, ("encode_image", pixels)))

    def encode_texts(self, weights: Weights, tokens_BT: Tensor) -> Tensor:
        """Unit embeddings [B, E] of token ids."""
        return self._unit(functional_call(self._calls[0], weights, ("encode_text", tokens_BT.to(self._device))))

    def _unit(self, features_BE: Tensor) -> Tensor:
        return F.normalize(features_BE.float(), dim=-1)


class _Calls(nn.Module):
    """Makes methods of a model callable with other weights: `functional_call` only calls `forward`."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, method: str, inputs: Tensor) -> Tensor:
        return getattr(self.clip, method)(inputs)
