"""Which layers of an image tower run in 8 bits, and which in float."""

from dataclasses import dataclass

import torch
from torch import nn

from pipeline.errors import InputError
from pipeline.model.pruning.cost import layer_macs, without_data
from pipeline.model.quantization.stem import stem_of
from pipeline.model.towers.families import blocks_of
from pipeline.model.towers.tower import Tower

NOTABLE_SHARE = 0.1
"""A larger share of multiply-adds in float is worth a warning."""

_NARROW = 32
"""A layer with fewer inputs or outputs gains nothing from 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Which layers of an image tower run in 8 bits."""

    singles: tuple[str, ...]
    """Names of the linear modules that are computed one by one, because they are in no plain block."""

    num_int8: int
    """Linear layers in 8 bits. Queries, keys and values of a block are one layer."""

    num_linear: int
    """Linear layers of the blocks, or of the whole tower if it has no blocks of a known kind."""

    has_blocks: bool
    reads_pixels: bool
    """Whether the patch embedding can be computed in 8 bits, from uint8 pixels."""

    in_float: tuple[str, ...]
    """The layers in float, in words. Attention itself, norms and activations are in float everywhere."""

    float_share: float
    """Share of the multiply-adds of all layers, unpruned, that run in float: from 0 to 1."""

    def __str__(self) -> str:
        """One sentence."""
        of_blocks = " of the blocks" if self.has_blocks else ""
        of_blocks += " and the patch embedding" if self.reads_pixels else ""
        in_float = f"; {_joined(self.in_float)} in float" if self.in_float else ""
        return f"{self.num_int8} of {self.num_linear} linear layers{of_blocks} in 8 bits{in_float}"

    @property
    def warning(self) -> str | None:
        """One line if 8 bits gain little on this tower; None otherwise."""
        if self.float_share <= NOTABLE_SHARE:
            return None
        return (
            f"int8: {self.float_share:.0%} of the image tower's multiply-adds stay in float "
            f"({_joined(self.in_float)}), so 8 bits gain less; compare with --precision auto"
        )


def coverage_of(visual: nn.Module, image_size: tuple[int, int], num_float_blocks: int = 0) -> Coverage:
    """Find the layers that 8-bit products can compute. Computes nothing: looks at shapes only.

    Args:
        visual: The image tower, with no policy attached.
        image_size: Height and width of its input in pixels.
        num_float_blocks: The first blocks of the tower, which stay in float.

    Raises:
        InputError: If there is none.
    """
    module = without_data(visual).eval()
    tower, total_macs = blocks_of(module), layer_macs(module, image_size)
    found = (
        _of_blocks(module, tower, total_macs, num_float_blocks)
        if tower
        else _of_modules(module, image_size, total_macs)
    )
    if not found.num_linear or not (found.num_int8 or num_float_blocks):
        kind = type(getattr(module, "trunk", module)).__name__
        raise InputError(
            f"precision int8: the image tower, a {kind}, has no linear layer that 8-bit products can compute; "
            "use --precision auto"
        )
    return found


def _of_blocks(module: nn.Module, tower: Tower, total_macs: int, num_float_blocks: int) -> Coverage:
    names = {layer: name for name, layer in module.named_modules()}
    singles, num_weights, num_int8, num_linear = [], 0, 0, 0
    for number, block in enumerate(tower.blocks):
        parts = tower.parts(block)
        others = [] if parts else tower.other_linears(block)
        linears = [parts.qkv, parts.proj, parts.fc1, parts.fc2] if parts else [tower.qkv(block)]
        num_linear += len(linears) + len(others)
        if number < num_float_blocks:
            continue
        num_weights += sum(linear.weight_NK.numel() for linear in linears)
        num_weights += sum(layer.weight.numel() for layer in others)
        num_int8 += len(linears) + len(others)
        singles += [names[layer] for layer in others]
    parts_of_tower = {layer for part in (*tower.blocks, tower.stem, tower.pool) if part for layer in part.modules()}
    others = [layer for layer in module.modules() if isinstance(layer, nn.Linear) and layer not in parts_of_tower]
    has_projection = bool(others) or getattr(module, "proj", None) is not None
    stem = stem_of(tower.stem)
    num_macs = (tower.num_prefix + tower.num_patches) * num_weights
    num_macs += tower.num_patches * stem.weight.numel() if stem else 0
    in_float = [
        *([] if stem else ["the patch embedding"]),
        *([f"the first {num_float_blocks} of {len(tower.blocks)} blocks"] if num_float_blocks else []),
        *(["the attention pool"] if tower.pool is not None else []),
        *(["the projection"] if has_projection else []),
    ]
    return Coverage(
        singles=tuple(singles),
        num_int8=num_int8,
        num_linear=num_linear,
        has_blocks=True,
        reads_pixels=stem is not None,
        in_float=tuple(in_float),
        float_share=1 - num_macs / total_macs,
    )


def _of_modules(module: nn.Module, image_size: tuple[int, int], total_macs: int) -> Coverage:
    names = {layer: name for name, layer in module.named_modules()}
    rows = _rows_of_layers(module, image_size)
    linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    wide = [layer for layer in linears if rows.get(layer, 0) > 1 and min(layer.weight.shape) >= _NARROW]
    num_convolutions = sum(isinstance(layer, nn.Conv2d) for layer in rows)
    others = [names[layer] for layer in linears if layer not in wide]
    in_float = [f"{num_convolutions} convolution{'s'[: num_convolutions != 1]}"] if num_convolutions else []
    in_float += others if len(others) < 4 else [f"{len(others)} linear layers"]
    return Coverage(
        singles=tuple(names[layer] for layer in wide),
        num_int8=len(wide),
        num_linear=len(linears),
        has_blocks=False,
        reads_pixels=False,
        in_float=tuple(in_float),
        float_share=1 - sum(rows[layer] * layer.weight.numel() for layer in wide) / total_macs,
    )


def _rows_of_layers(module: nn.Module, image_size: tuple[int, int]) -> dict[nn.Module, int]:
    """Rows that one image gives each linear layer and convolution that is called; some weights are used without."""
    rows: dict[nn.Module, int] = {}

    def note(layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        width = args[0].shape[1 if isinstance(layer, nn.Conv2d) else -1]
        rows[layer] = rows.get(layer, 0) + args[0].numel() // width

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    dtype = next(module.parameters()).dtype
    with torch.no_grad():
        module(torch.empty(1, 3, *image_size, dtype=dtype, device="meta"))
    for hook in hooks:
        hook.remove()
    return rows


def _joined(names: tuple[str, ...]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
