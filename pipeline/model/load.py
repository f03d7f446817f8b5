"""Load a CLIP through open_clip and say exactly what was loaded. Home of `open_clip`.

Weights are hashed in float32, as loaded and before any conversion, so that one checkpoint has one hash at every
precision and in every container format.
"""

import copy
import difflib
import logging
import warnings
from collections.abc import Callable
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
from pipeline.model.hashing import hash_tensors
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.spec import EMBEDDED, LOCAL_DIR, EncoderSpec, ModelSource, Precision, Preprocess

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAX_IMAGE_SIZE = 4096
"""Side of the tower's input in pixels; more is a slip of the pen, or memory that nobody has."""

_SCHEMAS = ("hf-hub:", LOCAL_DIR)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A CLIP in eval mode on its device, parameters as open_clip left them, with the spec of its unpruned self."""

    clip: nn.Module
    tokenize: Callable[[list[str]], Tensor]
    spec: EncoderSpec
    device: torch.device
    summary_offsets_LD: Tensor | None = None
    """What an adapter adds to the summaries that a policy makes."""


def load_model(source: ModelSource, precision: Precision, device: str | torch.device) -> LoadedModel:
    """Load a model by open_clip's own names.

    Args:
        source: `scenes`, a name with a pretrained tag, `hf-hub:...` or `local-dir:PATH`; its adapter is merged into
            the weights, in float32 and before any conversion.
        precision: Type of weights and activations.
        device: Where to run.

    Raises:
        ConfigError: If a name comes without a pretrained tag and random weights were not asked for.
        InputError: If the model is unknown or cannot be loaded, or the adapter is another model's.
    """
    source = source.absolute()
    name = _open_clip_name(source.model)
    _check_source(source)
    _check_image_size(source, name)
    adapter = read_adapter(source.adapter) if source.adapter else None
    try:
        # what open_clip logs to the root logger or warns of is an error of ours, before or after
        logging.disable(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clip, spec = _load_in_float32(source, name, precision, adapter)
            if precision != "fp32":
                clip = _in_precision(clip, name, precision, source.image_size)
    except ClipsieveError:
        raise
    except Exception as error:  # open_clip raises many kinds for files, names, networks and shapes
        reason = first_line(error)
        raise InputError(
            f"cannot load model {_label(source)}: {reason}; check the name, the tag, the path and the network"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    device = torch.device(device)
    offsets = adapter.summary_offsets_LD if adapter else None
    offsets = None if offsets is None else offsets.to(device)
    return LoadedModel(clip.eval().to(device), _Tokenizer(name), spec, device, offsets)


def _load_in_float32(
    source: ModelSource, name: str, precision: Precision, adapter: Adapter | None
) -> tuple[nn.Module, EncoderSpec]:
    """The model as it was published, at the wanted input size and with its adapter merged; and its spec."""
    torch.manual_seed(0)  # decides random weights, where they were asked for
    clip = open_clip.create_model(
        name,
        pretrained=source.pretrained,
        load_weights=not source.random_weights,
        require_pretrained=not source.random_weights,
    )
    weights_sha256 = hash_tensors(clip.state_dict().items())
    if source.image_size:
        clip = _at_image_size(clip, name, source.image_size)
    spec = _spec_of(clip, source, name, precision, weights_sha256)
    if adapter:
        adapter.merge_into(clip, weights_sha256)
        text_adapter = adapter.sha256 if adapter.updates_text else None
        spec = spec.model_copy(update={"adapter": adapter.sha256, "text_adapter": text_adapter})
    return clip, spec


def _in_precision(clip: nn.Module, name: str, precision: Precision, image_size: int | None) -> nn.Module:
    """open_clip's own low-precision model, whose norms stay in float32, with these weights."""
    lower = open_clip.create_model(
        name, precision=precision, load_weights=False, pretrained_text=False, force_image_size=image_size
    )
    lower.load_state_dict(clip.state_dict())
    return lower


class _Tokenizer:
    """open_clip's tokenizer of a model, loaded when it is first called: images can be embedded without it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tokenize: Callable[[list[str]], Tensor] | None = None

    def __call__(self, texts: list[str]) -> Tensor:
        if self._tokenize is None:
            try:
                self._tokenize = open_clip.get_tokenizer(self._name)
            except Exception as error:  # a missing package, a file, a network
                raise InputError(
                    f"cannot load the tokenizer of {self._name}: {first_line(error)}; SigLIP's and "
                    "other Hugging Face tokenizers need `pip install transformers`, and the network the first time"
                ) from error
        return self._tokenize(texts)


def with_policy(spec: EncoderSpec, policy: PruningPolicy | None) -> EncoderSpec:
    """The same encoder under another pruning policy."""
    return spec.model_copy(update={"policy": policy})


def _spec_of(clip: nn.Module, source: ModelSource, name: str, precision: Precision, weights_sha256: str) -> EncoderSpec:
    state = clip.state_dict()
    image = {key: value for key, value in state.items() if key.startswith("visual.")}
    # the logit scale stretches all scores alike: it belongs to neither space
    text = {key: value for key, value in state.items() if key not in image and not key.startswith("logit_")}
    architecture = copy.deepcopy(open_clip.get_model_config(name)) or {}
    if source.image_size:
        architecture["vision_cfg"]["image_size"] = source.image_size
    preprocess = dict(clip.visual.preprocess_cfg)
    height, width = _pair(preprocess.pop("size"))
    preprocess.pop("mode", None)
    return EncoderSpec(
        source=source,
        architecture=architecture,
        weights_sha256=weights_sha256,
        text_weights_sha256=hash_tensors(text.items()),
        image_weights_sha256=hash_tensors(image.items()),
        embedding_dim=architecture["embed_dim"],
        precision=precision,
        preprocess=Preprocess(height=height, width=width, **preprocess, decoder=source.decoder),
        policy=None,
    )


def _check_source(source: ModelSource) -> None:
    if source.model == EMBEDDED or source.model.startswith(_SCHEMAS):
        if source.pretrained or source.random_weights:
            raise ConfigError(
                f"model {source.model} brings its own weights; leave out --pretrained and --random-weights"
            )
        return
    names = open_clip.list_models()
    if source.model not in names:
        near = difflib.get_close_matches(source.model, names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "give an open_clip name, hf-hub:..., or local-dir:PATH"
        raise InputError(f"unknown model {source.model!r}; {hint}")
    if not source.pretrained and not source.random_weights:
        tags = open_clip.list_pretrained_tags_by_model(source.model)
        raise ConfigError(
            f"model {source.model} without a pretrained tag has random weights; give --pretrained TAG "
            f"({', '.join(tags[:6]) or 'a checkpoint file'}), or --random-weights to measure speed only"
        )
    _check_activation(source)


def _check_activation(source: ModelSource) -> None:
    # open_clip only warns, and embeds with the wrong activation
    tag = open_clip.get_pretrained_cfg(source.model, source.pretrained) if source.pretrained else None
    if not tag:
        return
    has_quick, needs_quick = (bool(cfg.get("quick_gelu")) for cfg in (open_clip.get_model_config(source.model), tag))
    if has_quick != needs_quick:
        name = f"{source.model}-quickgelu" if needs_quick else source.model.removesuffix("-quickgelu")
        raise ConfigError(
            f"model {source.model}: the weights {source.pretrained!r} were trained "
            f"{'with' if needs_quick else 'without'} QuickGELU; give --model {name}"
        )


def _at_image_size(clip: nn.Module, name: str, image_size: int) -> nn.Module:
    """The same model for another input size, its positions interpolated as open_clip does it.

    In float32, after loading: open_clip itself interpolates what is in the file, and fails on float16.
    """
    state = clip.state_dict()
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
            f"image_size = {source.image_size}: expected {patch_size} to {MAX_IMAGE_SIZE}, "
            f"a patch is {patch_size} pixels"
        )


def _open_clip_name(model: str) -> str:
    if model == EMBEDDED:
        return f"{LOCAL_DIR}{resources.files('pipeline.scenes') / 'weights'}"
    return model


def _label(source: ModelSource) -> str:
    return f"{source.model} / {source.pretrained}" if source.pretrained else source.model


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)
