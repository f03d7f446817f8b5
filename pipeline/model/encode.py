"""The encode stage: uint8 pixels in, unit embeddings out. A plain class; runs and is tested without Ray.

Settings of the measured baseline (`none`): open_clip's own `encode_image`, eval mode, parameters as loaded (not
frozen: frozen ones take torch's matmul off its folded path), `torch.inference_mode`, fused attention on.
"""

import copy
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ClipsieveError
from pipeline.model.device import device_name
from pipeline.model.load import DTYPES, LoadedModel, with_policy
from pipeline.model.pruning.attach import OnCut, attach
from pipeline.model.pruning.cost import gmacs_per_image, patches_per_block
from pipeline.model.pruning.policy import PruningPolicy, named_policy
from pipeline.model.spec import EncoderSpec, Preprocess
from pipeline.model.towers.families import unprunable_reason, view_of


class PixelScaling:
    """uint8 pixels to a tower's input: (pixels / 255 - mean) / std of each channel."""

    def __init__(self, preprocess: Preprocess, device: torch.device, dtype: torch.dtype) -> None:
        # one value per number of a row of pixels: torch's CPU kernels are several times slower along three channels
        scale = torch.tensor([1 / (255 * std) for std in preprocess.std], device=device)
        shift = [-mean / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
        self._scale = scale.repeat(preprocess.width)
        self._shift = torch.tensor(shift, device=device).repeat(preprocess.width)
        self._dtype = dtype

    def __call__(self, pixels_BHWC: Tensor) -> Tensor:
        """[B, C, H, W] on the device, from pixels there."""
        # [B, H, W, C] seen as [B, C, H, W] is channels-last, which the patch embedding likes best
        rows = torch.addcmul(self._shift, pixels_BHWC.flatten(2).float(), self._scale).to(self._dtype)
        return rows.view(pixels_BHWC.shape).permute(0, 3, 1, 2)


class Encoder:
    """One CLIP under one pruning policy, on one device."""

    spec: EncoderSpec
    """What made these embeddings."""

    gmacs: float
    """Cost of one image in 1e9 multiply-adds."""

    tokens_kept: int
    """Patch tokens that reach the end of the tower."""

    device: torch.device
    """Where it runs."""

    micro_batch: int | None = None
    """Images per forward pass, once the device's memory did not hold a whole batch."""

    num_halvings: int = 0
    """How often it ran out of memory so far."""

    transfer_s: float = 0.0
    """Seconds spent on bringing pixels to the device so far, and on decoding there."""

    def __init__(self, loaded: LoadedModel, policy: PruningPolicy | None, on_cut: OnCut | None = None) -> None:
        """Attach `policy` to a model of which the caller makes no other use meanwhile; see `attach` for `on_cut`."""
        self.spec = with_policy(loaded.spec, policy)
        self._clip = loaded.clip
        self._tokenize = loaded.tokenize
        self.device = loaded.device
        visual, preprocess = loaded.clip.visual, loaded.spec.preprocess
        is_foreign = policy is None and unprunable_reason(visual)
        counts = None if is_foreign else patches_per_block(view_of(visual), policy)
        self.gmacs = gmacs_per_image(visual, policy, (preprocess.height, preprocess.width), counts)
        self.tokens_kept = counts[-1] if counts else 0
        self.detach = attach(visual, policy, on_cut, loaded.summary_offsets_LD, counts)
        self._scaling = PixelScaling(preprocess, self.device, DTYPES[loaded.spec.precision])

    @torch.inference_mode()
    def encode(self, pixels_BHWC: np.ndarray | Tensor) -> np.ndarray:
        """Embed images.

        Where the device's memory does not hold the batch, it is cut into halves until it does, and later batches are
        cut alike.

        Args:
            pixels_BHWC: uint8 at the tower's input size; brought to the device unless it is a tensor there.

        Returns:
            float32 [B, E], unit length.

        Raises:
            ClipsieveError: If an embedding is not finite (damaged weights, or fp16 overflow), or the device's memory
                does not hold one image.
        """
        parts, start = [], 0
        while start < len(pixels_BHWC):
            part = pixels_BHWC[start : start + (self.micro_batch or len(pixels_BHWC))]
            try:
                on_device = part if isinstance(part, Tensor) else self.to_device(part)
                parts.append(self._unit(self.features(on_device), "an image"))
                start += len(part)
            except torch.OutOfMemoryError as error:
                self._halve(len(part), error)
        return np.concatenate(parts)

    def _halve(self, size: int, error: Exception) -> None:
        if size == 1:
            raise ClipsieveError(
                f"the memory of {device_name(self.device)} does not hold one image; choose a smaller --model or "
                "--image-size"
            ) from error
        self.micro_batch = (size + 1) // 2
        self.num_halvings += 1
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def to_device(self, pixels_BHWC: np.ndarray) -> Tensor:
        """uint8 pixels on the device; the time it takes is counted in `transfer_s`."""
        started = time.perf_counter()
        pixels = torch.from_numpy(pixels_BHWC)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # the copy then runs beside the kernels before it
        pixels = pixels.to(self.device, non_blocking=True)
        self.transfer_s += time.perf_counter() - started
        return pixels

    @torch.inference_mode()
    def features(self, pixels_BHWC: Tensor) -> Tensor:
        """The image tower alone: uint8 pixels on the device to features [B, E] there, of any length."""
        return self._clip.encode_image(self._scaling(pixels_BHWC))

    @torch.inference_mode()
    def encode_texts(self, texts: list[str], batch_size: int = 256) -> np.ndarray:
        """Embed texts: float32 [len(texts), E], unit length."""
        parts = []
        for start in range(0, len(texts), batch_size):
            tokens = self._tokenize(texts[start : start + batch_size]).to(self.device)
            parts.append(self._unit(self._clip.encode_text(tokens), "a text"))
        return np.concatenate(parts)

    def _unit(self, features: Tensor, what: str) -> np.ndarray:
        features = torch.nn.functional.normalize(features.float(), dim=-1)
        if not torch.isfinite(features).all():
            raise ClipsieveError(
                f"the embedding of {what} is not finite ({self.spec.describe()}); try --precision fp32 or other weights"
            )
        return features.cpu().numpy()


def sharing_weights(loaded: LoadedModel, is_frozen: bool = False) -> LoadedModel:
    """A copy of a model that shares its weights, so that two policies can be attached side by side.

    A frozen one takes no gradients; the model itself stays as it is, and as quick.
    """
    shared = {id(tensor): tensor for tensor in (*loaded.clip.parameters(), *loaded.clip.buffers())}
    if is_frozen:
        frozen = {id(p): torch.nn.Parameter(p.detach(), requires_grad=False) for p in loaded.clip.parameters()}
        shared |= frozen
    return replace(loaded, clip=copy.deepcopy(loaded.clip, shared))


def fastest_encoder(loaded: LoadedModel, policy: PruningPolicy | None) -> Encoder:
    """The encoder that embeds collections: as asked, without computing what nobody reads.

    Unpruned it runs the policy `lossless`, which gives the same embeddings up to the rounding of their precision, in
    less time. `Encoder(loaded, None)` is open_clip's own forward, the baseline of every measurement.
    """
    if policy is not None or unprunable_reason(loaded.clip.visual):
        return Encoder(loaded, policy)
    encoder = Encoder(loaded, named_policy("lossless"))
    encoder.spec = with_policy(loaded.spec, None)
    return encoder


def policy_or_unpruned(
    loaded: LoadedModel, policy: PruningPolicy | None, is_default: bool
) -> tuple[PruningPolicy | None, str | None]:
    """The policy to run a model under, and a warning where nobody asked for one and the tower takes none."""
    reason = unprunable_reason(loaded.clip.visual) if is_default else None
    if reason:
        return None, f"this image tower cannot be pruned: {reason}; it runs unpruned"
    return policy, None


def compile_tower(loaded: LoadedModel) -> None:
    """Compile the image tower for the shapes it will see; the first call of each shape then takes minutes."""
    mode = "reduce-overhead" if loaded.device.type == "cuda" else "default"  # the former: CUDA graphs
    loaded.clip.visual.compile(mode=mode, dynamic=False)
