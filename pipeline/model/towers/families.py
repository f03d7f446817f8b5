"""Find the view for an image tower, or the reason why it cannot be pruned."""

from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from pipeline.errors import InputError
from pipeline.model.towers import onednn
from pipeline.model.towers.open_clip_tower import OpenClipTower
from pipeline.model.towers.timm_tower import TimmTower
from pipeline.model.towers.tower import Tower

_FAMILIES: dict[type[nn.Module], type[OpenClipTower | TimmTower]] = {
    VisionTransformer: OpenClipTower,
    TimmModel: TimmTower,
}


def view_of(module: nn.Module) -> Tower:
    """The view for an image tower.

    Raises:
        InputError: If this tower cannot be pruned; the message gives the reason.
    """
    reason = unprunable_reason(module)
    if reason:
        raise InputError(f"this image tower cannot be pruned: {reason}; use the policy `none`")
    tower = _FAMILIES[type(module)](module)
    tower.kernels = onednn.kernels_of(module)
    return tower


def unprunable_reason(module: nn.Module) -> str | None:
    """Why an image tower cannot be pruned; None if it can."""
    if type(module) not in _FAMILIES:
        return f"{type(module).__name__} is not a Vision Transformer"
    return _FAMILIES[type(module)].unprunable_reason(module)
