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
    return _view(module)


def blocks_of(module: nn.Module) -> Tower | None:
    """A view of a tower whose blocks can be computed one by one, though perhaps not pruned; None if they cannot."""
    return None if _foreign_reason(module) else _view(module)


def unprunable_reason(module: nn.Module) -> str | None:
    """Why an image tower cannot be pruned; None if it can."""
    return _foreign_reason(module) or _FAMILIES[type(module)].unprunable_reason(module)


def _view(module: nn.Module) -> Tower:
    tower = _FAMILIES[type(module)](module)
    tower.kernels = onednn.kernels_of(module)
    return tower


def _foreign_reason(module: nn.Module) -> str | None:
    if type(module) not in _FAMILIES:
        return f"{type(module).__name__} is not a Vision Transformer"
    return _FAMILIES[type(module)].foreign_reason(module)
