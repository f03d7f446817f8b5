"""Load a CLIP through open_clip and record exactly what was loaded. Home of `open_clip`.

Weights are hashed in float32, as loaded and before any conversion, so that a checkpoint has the same hash in every
precision and file format.
"""

import copy
import difflib
import logging
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import resources
from typing import Any

import open_clip
import torch
from open_clip.model import resize_pos_embed
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from pipeline.errors import ClipsieveError, ConfigError, InputError, first_line
from pipeline.model.adapter.files import Adapter, read_adapter
from pipeline.model.device import default_batch_size, precision_on
from pipeline.model.hashing import hash_tensors
from pipeline.model.no_init import NoInit
from pipeline.model.precision import EIGHT_BITS, Candidate, Kernels, Measurement, Precision, PrecisionChoice
from pipeline.model.probe import measure, slow_8_bits
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.quantization.calibration import Calibration
from pipeline.model.quantization.tower import refuse_without_8_bits
from pipeline.model.spec import EMBEDDED, LOCAL_DIR, EncoderSpec, ModelSource, Preprocess
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.towers import onednn

MAX_IMAGE_SIZE = 4096
"""Largest side of the tower's input in pixels; anything larger is a typo, or would not fit in memory."""

_STRIDE = 32
"""The input side of a convolutional tower is a multiple of this."""

_SCHEMAS = ("hf-hub:", LOCAL_DIR)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A CLIP in eval mode on its device, with parameters as loaded by open_clip and its unpruned encoder spec."""

    clip: nn.Module
    tokenize: Tokenizer
    spec: EncoderSpec
    device: torch.device
    measurement: Measurement | None = None
    """How fast the device computes the tower in each way, and which one was chosen; None if nothing was measured."""

    summary_offsets_LD: Tensor | None = None
    """Offsets that an adapter adds to the summary tokens of a policy."""

    calibration: Calibration | None = None
    """In int8, how activations are rounded; None until it is known."""

    @property
    def kernels(self) -> Kernels:
        """How a CPU computes the image tower in bf16, and attention beside int8."""
        return onednn.kernels_of(self.clip.visual)

    @property
    def warning(self) -> str | None:
        """One line if 8 bits were chosen and gain little on this device, or it has no instructions for them."""
        is_8_bits = self.measurement and self.measurement.chosen.precision in EIGHT_BITS
        return slow_8_bits(self.measurement) if is_8_bits else None


def load_model(
    source: ModelSource,
    precision: PrecisionChoice,
    device: str | torch.device,
    batch_size: int | None = None,
    kernels: Kernels | None = None,
) -> LoadedModel:
    """Load a model by its open_clip name.

    Args:
        source: `scenes`, a name with a pretrained tag, `hf-hub:...` or `local-dir:PATH`. Its adapter is merged into
            the weights in float32, before any conversion.
        precision: Data type of weights and activations; `auto` is the one that the device computes the tower in
            fastest, see `pipeline.model.probe`; `8bit` is int8 or fp8, whichever the device has.
        device: Where to run.
        batch_size: Images per forward pass, to measure with. None is the default of the device.
        kernels: How a CPU computes bf16. None means the faster way.

    Raises:
        ConfigError: If a name has no pretrained tag and random weights were not requested, or the device does not
            compute in the precision.
        InputError: If the model is unknown or cannot be loaded, its image tower has no layer for 8 bits, or the adapter
            belongs to another model.
    """
    source = source.absolute()
    name = _open_clip_name(source.model)
    _check_source(source)
    _check_image_size(source, name)
    adapter = read_adapter(source.adapter) if source.adapter else None
    device = torch.device(device)
    precision = precision_on(device, precision)
    try:
        # open_clip logs to the root logger and warns; we report the same problems as errors
        logging.disable(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clip, spec = _load_in_float32(source, name, adapter)
            refuse_without_8_bits(clip.visual, precision, (spec.preprocess.height, spec.preprocess.width))
            chosen, measurement = _choose(clip.visual, precision, kernels, device, batch_size)
            spec = spec.model_copy(update={"precision": chosen.precision})
            if chosen.precision not in ("fp32", "int8"):
                of_weights: Precision = "bf16" if chosen.precision == "fp8" else chosen.precision
                clip = _in_precision(clip, name, of_weights, source.image_size)
            onednn.use(clip.visual, chosen.kernels)
    except ClipsieveError:
        raise
    except Exception as error:  # open_clip raises many types for files, names, networks and shapes
        reason = first_line(error)
        raise InputError(
            f"cannot load model {_label(source)}: {reason}; check the name, the tag, the path and the network"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    offsets = adapter.summary_offsets_LD if adapter else None
    offsets = None if offsets is None else offsets.to(device)
    return LoadedModel(clip.eval().to(device), Tokenizer(name), spec, device, measurement, offsets)


def _choose(
    visual: nn.Module,
    asked: PrecisionChoice,
    kernels: Kernels | None,
    device: torch.device,
    batch_size: int | None,
) -> tuple[Candidate, Measurement | None]:
    """Choose the precision and, for bf16 on a CPU, the kernels. Measures only if a choice is left."""
    if asked != "auto" and (asked not in ("bf16", "int8") or device.type != "cpu" or kernels):
        return Candidate(precision=asked, kernels=kernels or "torch"), None
    measured = measure(visual.eval().to(device), device, batch_size or default_batch_size(device), asked == "int8")
    chosen = measured.chosen
    if asked != "auto":
        chosen = Candidate(precision=asked, kernels=measured.kernels_in(asked))
    elif kernels:
        chosen = Candidate(precision=chosen.precision, kernels=kernels)
    return chosen, measured.model_copy(update={"chosen": chosen})


def _load_in_float32(source: ModelSource, name: str, adapter: Adapter | None) -> tuple[nn.Module, EncoderSpec]:
    """Load the model in float32, at the requested input size and with its adapter merged, and describe it."""
    torch.manual_seed(0)  # determines random weights, if requested
    with nullcontext() if source.random_weights else NoInit():
        clip = open_clip.create_model(
            name,
            pretrained=source.pretrained,
            load_weights=not source.random_weights,
            require_pretrained=not source.random_weights,
        )
    weights_sha256 = hash_tensors(clip.state_dict().items())
    if source.image_size:
        clip = _at_image_size(clip, name, source.image_size)
    spec = _spec_of(clip, source, name, "fp32", weights_sha256)
    if adapter:
        adapter.merge_into(clip, weights_sha256)
        text_adapter = adapter.sha256 if adapter.updates_text else None
        spec = spec.model_copy(update={"adapter": adapter.sha256, "text_adapter": text_adapter})
    return clip, spec


def _in_precision(clip: nn.Module, name: str, precision: Precision, image_size: int | None) -> nn.Module:
    """open_clip's own low-precision model with these weights; its norms stay in float32."""
    with NoInit():
        lower = open_clip.create_model(
            name, precision=precision, load_weights=False, pretrained_text=False, force_image_size=image_size
        )
    lower.load_state_dict(clip.state_dict())
    return lower


def input_side(model: str) -> tuple[int, int] | None:
    """Side of the image tower's own input, and the side of its patches, in pixels; None if there is no such model."""
    try:
        config: dict[str, Any] | None = open_clip.get_model_config(_open_clip_name(model))
    except Exception:  # many types, for files and networks; loading the model reports them
        return None
    vision = (config or {}).get("vision_cfg")
    if not vision:
        return None
    side = vision.get("image_size", 224)
    named = re.search(r"patch(\d+)", vision.get("timm_model_name") or "")
    patch = vision.get("patch_size") or (int(named.group(1)) if named else _STRIDE)
    return (side if isinstance(side, int) else max(side)), (patch if isinstance(patch, int) else max(patch))


def with_policy(spec: EncoderSpec, policy: PruningPolicy | None) -> EncoderSpec:
    """The same encoder with another pruning policy."""
    return spec.model_copy(update={"policy": policy})


def _spec_of(clip: nn.Module, source: ModelSource, name: str, precision: Precision, weights_sha256: str) -> EncoderSpec:
    state = clip.state_dict()
    image = {key: value for key, value in state.items() if key.startswith("visual.")}
    # the logit scale multiplies all scores equally, so it belongs to neither space
    text = {key: value for key, value in state.items() if key not in image and not key.startswith("logit_")}
    with ThreadPoolExecutor(2) as pool:  # a hash lets other threads run
        text_sha256, image_sha256 = pool.map(hash_tensors, (text.items(), image.items()))
    architecture = copy.deepcopy(open_clip.get_model_config(name)) or {}
    if source.image_size:
        architecture["vision_cfg"]["image_size"] = source.image_size
    preprocess = dict(clip.visual.preprocess_cfg)
    size = preprocess.pop("size")
    height, width = (size, size) if isinstance(size, int) else size
    preprocess.pop("mode", None)
    return EncoderSpec(
        source=source,
        architecture=architecture,
        weights_sha256=weights_sha256,
        text_weights_sha256=text_sha256,
        image_weights_sha256=image_sha256,
        embedding_dim=architecture["embed_dim"],
        precision=precision,
        preprocess=Preprocess(height=height, width=width, **preprocess, decoder=source.decoder),
        policy=None,
    )


def _check_source(source: ModelSource) -> None:
    if source.model == EMBEDDED or source.model.startswith(_SCHEMAS):
        if source.pretrained or source.random_weights:
            raise ConfigError(f"model {source.model} includes its own weights; drop --pretrained and --random-weights")
        return
    names = open_clip.list_models()
    if source.model not in names:
        near = difflib.get_close_matches(source.model, names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "give an open_clip name, hf-hub:..., or local-dir:PATH"
        raise InputError(f"unknown model {source.model!r}; {hint}")
    if not source.pretrained and not source.random_weights:
        tags = open_clip.list_pretrained_tags_by_model(source.model)
        raise ConfigError(
            f"model {source.model} has random weights without a pretrained tag; give --pretrained TAG "
            f"({', '.join(tags[:6]) or 'a checkpoint file'}), or --random-weights to only measure speed"
        )
    _check_activation(source)


def _check_activation(source: ModelSource) -> None:
    # open_clip only warns, then embeds with the wrong activation
    tag = open_clip.get_pretrained_cfg(source.model, source.pretrained) if source.pretrained else None
    if not tag:
        return
    has_quick, needs_quick = (bool(cfg.get("quick_gelu")) for cfg in (open_clip.get_model_config(source.model), tag))
    if has_quick != needs_quick:
        name = f"{source.model}-quickgelu" if needs_quick else source.model.removesuffix("-quickgelu")
        raise ConfigError(
            f"model {source.model}: weights {source.pretrained!r} were trained "
            f"{'with' if needs_quick else 'without'} QuickGELU; give --model {name}"
        )


def _at_image_size(clip: nn.Module, name: str, image_size: int) -> nn.Module:
    """The same model at another input size, with positions interpolated as in open_clip.

    Interpolates in float32 after loading: open_clip interpolates the tensors of the file itself, and fails on float16.
    """
    state = clip.state_dict()
    with NoInit():
        resized = open_clip.create_model(name, load_weights=False, pretrained_text=False, force_image_size=image_size)
    if isinstance(clip.visual, TimmModel):
        clip.visual.set_input_size(image_size)
        state = clip.state_dict()
    else:
        resize_pos_embed(state, resized)
    resized.load_state_dict(state)
    return resized


def _check_image_size(source: ModelSource, name: str) -> None:
    if source.image_size is None:
        return
    patch_size = ((open_clip.get_model_config(name) or {}).get("vision_cfg") or {}).get("patch_size") or 1
    if not patch_size <= source.image_size <= MAX_IMAGE_SIZE:
        raise ConfigError(
            f"image_size = {source.image_size}: expected {patch_size} to {MAX_IMAGE_SIZE} "
            f"(a patch is {patch_size} pixels)"
        )


def _open_clip_name(model: str) -> str:
    if model == EMBEDDED:
        return f"{LOCAL_DIR}{resources.files('pipeline.scenes') / 'weights'}"
    return model


def _label(source: ModelSource) -> str:
    return f"{source.model} / {source.pretrained}" if source.pretrained else source.model
