"""Which text towers can be computed without torch: open_clip's own, with its default options. As data."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

# The image tower and the scale of the logits change no text vector. Anything that is not named here might.
_HARMLESS = {"vision_cfg", "custom_text", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"}


class TextShape(BaseModel):
    """What the weights do not say about a text tower. The fields and defaults are those of open_clip's `text_cfg`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 512
    heads: int = 8
    layers: int = 12
    mlp_ratio: float = 4.0
    no_causal_mask: bool = False
    quick_gelu: bool = False
    embed_dim: int


def shape_of(architecture: Mapping[str, Any]) -> TextShape | None:
    """The shape of a model's text tower; None if the tower has options that are not known here.

    Args:
        architecture: The model's configuration, as in open_clip.
    """
    whole = {name: value for name, value in architecture.items() if name not in _HARMLESS}
    text = whole.pop("text_cfg", None)
    try:
        return TextShape(**whole, **text)
    except (ValidationError, TypeError):
        return None
