"""The encode stage: uint8 pixels in, unit embeddings out. A plain class; runs and is tested without Ray.

Settings of the measured baseline (`none`): open_clip's own `encode_image`, eval mode, parameters as loaded (not
frozen: frozen ones take torch's matmul off its folded path), `torch.inference_mode`, fused attention on.
"""

import copy

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ClipsieveError
from pipeline.machine import num_cores
from pipeline.model.flops import gmacs_per_image
from pipeline.model.load import DTYPES, LoadedModel, with_policy
from pipeline.model.prune import attach
from pipeline.model.towers import unprunable_reason, view_of
from pipeline.policy import PruningPolicy
from pipeline.spec import EncoderSpec


class Encoder:
    """One CLIP under one pruning policy, on one device."""

    spec: EncoderSpec
    """What made these embeddings."""

    gmacs: float
    """Cost of one image in 1e9 multiply-adds."""

    tokens_kept: int
    """Patch tokens that reach the end of the tower."""

    def __init__(self, loaded: LoadedModel, policy: PruningPolicy | None) -> None:
        """Attach `policy` to a model of which the caller makes no other use meanwhile."""
        self.spec = with_policy(loaded.spec, policy)
        self._clip = loaded.clip
        self._tokenize = loaded.tokenize
        self._device = loaded.device
        self._dtype = DTYPES[loaded.spec.precision]
        preprocess = loaded.spec.preprocess
        self.gmacs = gmacs_per_image(loaded.clip.visual, policy, (preprocess.height, preprocess.width))
        self.tokens_kept = _tokens_kept(loaded.clip.visual, policy)
        self.detach = attach(loaded.clip.visual, policy)
        self._scale = torch.tensor([1 / (255 * std) for std in preprocess.std], device=self._device)
        self._shift = torch.tensor(
            [-mean / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)], device=self._device
        )

    @torch.inference_mode()
    def encode(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        """Embed images.

        Args:
            pixels_BHWC: uint8 at the tower's input size.

        Returns:
            float32 [B, E], unit length.

        Raises:
            ClipsieveError: If an embedding is not finite (damaged weights, or fp16 overflow).
        """
        pixels = torch.from_numpy(pixels_BHWC).to(self._device, non_blocking=True)
        # [B, H, W, C] seen as [B, C, H, W] is channels-last, which the patch embedding likes best
        images = torch.addcmul(self._shift, pixels.float(), self._scale).to(self._dtype).permute(0, 3, 1, 2)
        return self._unit(self._clip.encode_image(images), "an image")

    @torch.inference_mode()
    def encode_texts(self, texts: list[str], batch_size: int = 256) -> np.ndarray:
        """Embed texts: float32 [len(texts), E], unit length."""
        parts = []
        for start in range(0, len(texts), batch_size):
            tokens = self._tokenize(texts[start : start + batch_size]).to(self._device)
            parts.append(self._unit(self._clip.encode_text(tokens), "a text"))
        return np.concatenate(parts)

    def _unit(self, features: Tensor, what: str) -> np.ndarray:
        features = torch.nn.functional.normalize(features.float(), dim=-1)
        if not torch.isfinite(features).all():
            raise ClipsieveError(
                f"the embedding of {what} is not finite ({self.spec.describe()}); try --precision fp32 or other weights"
            )
        return features.cpu().numpy()


def twin(loaded: LoadedModel) -> LoadedModel:
    """An independent copy of a model, so that two policies can run side by side."""
    return LoadedModel(copy.deepcopy(loaded.clip), loaded.tokenize, loaded.spec, loaded.device)


def whole_machine() -> torch.device:
    """Give this process all its cores, and name its fastest device: for measuring, where no worker shares them."""
    torch.set_num_threads(num_cores())
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _tokens_kept(module: torch.nn.Module, policy: PruningPolicy | None) -> int:
    if unprunable_reason(module):
        return 0
    tower = view_of(module)
    num_patches = tower.grid[0] * tower.grid[1]
    return policy.patches_per_block(num_patches, len(tower.blocks))[-1] if policy else num_patches
