"""The encode stage: uint8 pixels in, unit embeddings out. A plain class that runs and is tested without Ray.

Settings of the measured baseline (`none`): open_clip's own `encode_image`, eval mode, parameters as loaded (not
frozen: frozen parameters keep torch's matmul off its folded path), `torch.inference_mode`, fused attention on.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ClipsieveError, first_line
from pipeline.model.device import DTYPES, device_name
from pipeline.model.load import LoadedModel, with_policy
from pipeline.model.pruning.attach import OnCut, attach
from pipeline.model.pruning.cost import gmacs_per_image, patches_per_block
from pipeline.model.pruning.policy import PruningPolicy, named_policy
from pipeline.model.quantization.coverage import Coverage, coverage_of
from pipeline.model.quantization.fp8 import attach_fp8
from pipeline.model.quantization.tower import attach_int8
from pipeline.model.spec import EncoderSpec
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.towers.families import unprunable_reason, view_of
from pipeline.model.transform import PixelScaling, as_channels


class Encoder:
    """One CLIP with one pruning policy, on one device."""

    spec: EncoderSpec
    """The spec of this encoder."""

    gmacs: float
    """Cost of one image in 1e9 multiply-adds."""

    tokens_kept: int
    """Patch tokens that reach the end of the tower."""

    device: torch.device
    """The device it runs on."""

    tokenize: Tokenizer
    """Turns texts into token ids."""

    coverage: Coverage | None = None
    """Which layers run in 8 bits, and which in float; None in another precision."""

    copying: torch.cuda.Stream | None
    """Where the next batch moves to a GPU meanwhile. One for all shards: each stream keeps the memory it has used."""

    micro_batch: int | None = None
    """Images per forward pass after the device ran out of memory; None while whole batches fit."""

    num_halvings: int = 0
    """Number of times the device has run out of memory."""

    transfer_s: float = 0.0
    """Seconds spent so far on copying pixels to the device and decoding there."""

    def __init__(self, loaded: LoadedModel, policy: PruningPolicy | None, on_cut: OnCut | None = None) -> None:
        """Attach `policy` to a model that the caller must not use meanwhile; see `attach` for `on_cut`."""
        self.spec = with_policy(loaded.spec, policy)
        self._clip = loaded.clip
        self.tokenize = loaded.tokenize
        self.device = loaded.device
        visual, preprocess = loaded.clip.visual, loaded.spec.preprocess
        is_foreign = policy is None and unprunable_reason(visual)
        counts = None if is_foreign else patches_per_block(view_of(visual), policy)
        self.gmacs = gmacs_per_image(visual, policy, (preprocess.height, preprocess.width), counts)
        self.tokens_kept = counts[-1] if counts else 0
        further = on_cut, loaded.summary_offsets_LD, counts
        if loaded.spec.precision == "int8":
            if loaded.calibration is None:
                raise ClipsieveError("int8 needs ranges of activations, but this model has none; this is a bug")
            in_float = loaded.calibration.made_of.num_float_blocks
            self.coverage = coverage_of(visual, (preprocess.height, preprocess.width), in_float)
            self.detach = attach_int8(visual, policy, self.coverage, loaded.calibration.ranges, preprocess, *further)
        elif loaded.spec.precision == "fp8":
            self.detach = attach_fp8(visual, policy, *further)
        else:
            self.detach = attach(visual, policy, *further)
        reads_pixels = self.coverage is not None and self.coverage.reads_pixels
        scaling = PixelScaling(preprocess, self.device, DTYPES[loaded.spec.precision])
        self._scaling: Callable[[Tensor], Tensor] = as_channels if reads_pixels else scaling
        self.copying = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._compiled_size = 0

    def compile(self, batch_size: int, backend: str | Callable[..., Any] = "inductor") -> str | None:
        """Compile the image tower for batches of one size, which takes up to a minute.

        Batches of any other size run as before: the last of a shard, and those halved after the device ran out of
        memory. The last bits of an embedding differ between the two.

        Args:
            batch_size: The size to compile for.
            backend: That of torch.compile.

        Returns:
            Why the tower cannot be compiled; it then runs as before. None if it is compiled.
        """
        preprocess = self.spec.preprocess
        self._compiled, self._compiled_size = torch.compile(self._run, backend=backend, dynamic=False), batch_size
        try:
            self.encode(np.zeros((batch_size, preprocess.height, preprocess.width, 3), np.uint8))
        except (RuntimeError, ImportError, OSError) as error:  # no compiler on this machine, or one that fails
            self._compiled = None
            return first_line(getattr(error, "inner_exception", error))  # the compiler's own error, if it is wrapped
        return None

    @torch.inference_mode()
    def encode(self, pixels_BHWC: np.ndarray | Tensor) -> np.ndarray:
        """Embed images.

        If the device runs out of memory, the batch is halved until it fits, and later batches are split the same way.

        Args:
            pixels_BHWC: uint8 at the tower's input size; a tensor must already be on the device, an array is copied.

        Returns:
            float32 [B, E], unit length.

        Raises:
            ClipsieveError: If an embedding is not finite (damaged weights, or fp16 overflow), or one image does not
                fit in the device's memory.
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
                f"one image does not fit in the memory of {device_name(self.device)}; use a smaller model, a smaller "
                "image size, or a device with more memory"
            ) from error
        self.micro_batch = (size + 1) // 2
        self.num_halvings += 1
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def to_device(self, pixels_BHWC: np.ndarray) -> Tensor:
        """Copy uint8 pixels to the device; the time counts towards `transfer_s`."""
        started = time.perf_counter()
        pixels = torch.from_numpy(pixels_BHWC)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # lets the copy overlap with the preceding kernels
        pixels = pixels.to(self.device, non_blocking=True)
        self.transfer_s += time.perf_counter() - started
        return pixels

    @torch.inference_mode()
    def features(self, pixels_BHWC: Tensor) -> Tensor:
        """Run the image tower alone: uint8 pixels on the device to features [B, E] on the device, not normalised."""
        is_compiled = self._compiled and len(pixels_BHWC) == self._compiled_size
        return (self._compiled if is_compiled else self._run)(pixels_BHWC)

    def _run(self, pixels_BHWC: Tensor) -> Tensor:
        return self._clip.encode_image(self._scaling(pixels_BHWC))

    @property
    def text_space(self) -> str:
        """Text space of its text vectors."""
        return self.spec.text_space

    def text_weights(self) -> dict[str, np.ndarray]:
        """The weights of the text tower on the CPU, by their names in open_clip's `CLIP`, without the logit scale."""
        return {
            name.removeprefix("text."): tensor.detach().cpu().numpy()
            for name, tensor in self._clip.state_dict().items()
            if not name.startswith(("visual.", "logit_"))
        }

    @torch.inference_mode()
    def encode_texts(self, texts: list[str], batch_size: int = 256) -> np.ndarray:
        """Embed texts: float32 [len(texts), E], unit length."""
        parts = []
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenize(texts[start : start + batch_size]).to(self.device)
            parts.append(self._unit(self._clip.encode_text(tokens), "a text"))
        return np.concatenate(parts)

    def _unit(self, features: Tensor, what: str) -> np.ndarray:
        features = torch.nn.functional.normalize(features.float(), dim=-1)
        if not torch.isfinite(features).all():
            raise ClipsieveError(
                f"the embedding of {what} is not finite ({self.spec.describe()}); use fp32, or other weights"
            )
        return features.cpu().numpy()


def sharing_weights(loaded: LoadedModel, is_frozen: bool = False) -> LoadedModel:
    """Copy a model without copying its weights, so that two policies can be attached side by side.

    A frozen copy computes no gradients for its weights. The original is unchanged and keeps its speed.
    """
    shared = {id(tensor): tensor for tensor in (*loaded.clip.parameters(), *loaded.clip.buffers())}
    if is_frozen:
        frozen = {id(p): torch.nn.Parameter(p.detach(), requires_grad=False) for p in loaded.clip.parameters()}
        shared |= frozen
    return replace(loaded, clip=copy.deepcopy(loaded.clip, shared))


def fastest_encoder(loaded: LoadedModel, policy: PruningPolicy | None) -> Encoder:
    """The encoder that embeds collections: follows the policy, and skips computation whose result is never read.

    Without a policy it runs `lossless`, which gives the same embeddings up to rounding, in less time.
    `Encoder(loaded, None)` is open_clip's own forward pass, the baseline of every measurement.
    """
    if policy is not None or unprunable_reason(loaded.clip.visual):
        return Encoder(loaded, policy)
    encoder = Encoder(loaded, named_policy("lossless"))
    encoder.spec = with_policy(loaded.spec, None)
    return encoder


def policy_or_unpruned(
    loaded: LoadedModel, policy: PruningPolicy | None, is_default: bool
) -> tuple[PruningPolicy | None, str | None]:
    """The policy to run a model with; None and a warning if the default policy does not suit the tower."""
    reason = unprunable_reason(loaded.clip.visual) if is_default else None
    if reason:
        return None, f"this image tower cannot be pruned: {reason}; it runs unpruned"
    return policy, None


def compile_tower(loaded: LoadedModel) -> None:
    """Compile the image tower for fixed shapes; the first call with each shape then takes minutes."""
    mode = "reduce-overhead" if loaded.device.type == "cuda" else "default"  # reduce-overhead uses CUDA graphs
    loaded.clip.visual.compile(mode=mode, dynamic=False)
