"""Single linear layers by 8-bit products: those of a tower that are in no plain block. Inputs and outputs are float32.

In a block of a known family, the projection to queries, keys and values is such a layer, too; the others are modules.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.model.quantization.coverage import Coverage
from pipeline.model.quantization.observe import MAX_BYTES, MAX_ROWS, Input, best_range
from pipeline.model.quantization.products import Int8Linear, Range, quantize
from pipeline.model.quantization.shared import shared
from pipeline.model.towers.parts import Linear
from pipeline.model.towers.tower import Tower

Undo = Callable[[], None]


def joint_projections(tower: Tower | None) -> dict[nn.Module, str]:
    """The blocks that are not plain, with the names of their joint projections to queries, keys and values."""
    blocks = enumerate(tower.blocks) if tower else []
    return {block: f"{number}.qkv" for number, block in blocks if not tower.parts(block)}


class LayerObserver:
    """Notes what enters the single layers of a tower in float32."""

    def __init__(self, visual: nn.Module, tower: Tower | None, coverage: Coverage) -> None:
        """Observe the single layers of `visual`; `tower` is the view that computes its blocks, if it has any."""
        self._joint = joint_projections(tower)
        self._modules = {name: visual.get_submodule(name) for name in coverage.singles}
        self._linears = {name: Linear.of(module) for name, module in self._modules.items()}
        self._linears |= {name: tower.qkv(block) for block, name in self._joint.items()}
        width = sum(linear.weight_NK.shape[1] for linear in self._linears.values())
        max_rows = min(MAX_ROWS, MAX_BYTES // (4 * max(1, width)))
        self._inputs = {name: Input(max_rows) for name in self._linears}
        if tower:
            tower.heads = partial(self._heads, tower)  # hides the method of the class, in this view only
        self._hooks = [
            module.register_forward_pre_hook(partial(self._see, name)) for name, module in self._modules.items()
        ]

    def ranges(self) -> dict[str, Range]:
        """The best range of each input, by the name of the layer."""
        return {name: best_range(seen, self._linears[name]) for name, seen in self._inputs.items()}

    def detach(self) -> None:
        """Stop observing."""
        for hook in self._hooks:
            hook.remove()

    def _see(self, name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._inputs[name].see(args[0].reshape(len(args[0]), -1, args[0].shape[-1]))

    def _heads(self, tower: Tower, block: nn.Module, normed_BTD: Tensor, parts: str) -> list[Tensor]:
        if block in self._joint and "v" in parts:  # for the class token, the query of one token comes apart
            self._inputs[self._joint[block]].see(normed_BTD)
        return type(tower).heads(tower, block, normed_BTD, parts)


class Int8Layers:
    """The single layers of a tower, computed by 8-bit products until `detach`."""

    @torch.no_grad()
    def __init__(self, visual: nn.Module, tower: Tower | None, coverage: Coverage, ranges: Mapping[str, Range]) -> None:
        """Round the weights of the single layers, and have them computed so.

        Args:
            visual: The image tower, with weights in float32 on a CPU.
            tower: The view that computes its blocks, if it has any.
            coverage: That of `visual`.
            ranges: By the name of the layer, how its inputs are rounded.
        """
        self._ranges = {block: ranges[name] for block, name in joint_projections(tower).items() if name in ranges}
        self._joint: dict[tuple[nn.Module, str], _Layer] = {}
        self._modules = [visual.get_submodule(name) for name in coverage.singles]
        if tower:
            tower.heads = partial(self._heads, tower)  # hides the method of the class, in this view only
        for name, module in zip(coverage.singles, self._modules, strict=True):
            weights = tuple(module.parameters())
            module.forward = shared(
                (_Layer,), weights, (ranges[name],), partial(_Layer.of, Linear.of(module), ranges[name])
            ).__call__

    def detach(self) -> None:
        """Have the modules computed in float again; calling it twice is harmless."""
        for module in self._modules:
            vars(module).pop("forward", None)

    def _heads(self, tower: Tower, block: nn.Module, normed_BTD: Tensor, parts: str) -> list[Tensor]:
        if block not in self._ranges:
            return type(tower).heads(tower, block, normed_BTD, parts)
        if (block, parts) not in self._joint:  # only the last block needs queries apart from keys and values
            found, weights = self._ranges[block], tuple(block.attn.parameters())
            make = partial(_Layer.of, tower.qkv(block).rows(parts), found)
            self._joint[block, parts] = shared((_Layer, parts), weights, (found,), make)
        return tower.split_heads(block, self._joint[block, parts](normed_BTD), parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layer:
    """A linear layer that rounds its inputs."""

    product: Int8Linear
    found: Range

    @classmethod
    def of(cls, linear: Linear, found: Range) -> "_Layer":
        return cls(product=Int8Linear(linear, found), found=found)

    def __call__(self, x: Tensor) -> Tensor:
        x_u8 = quantize(x, self.found).flatten(0, -2).contiguous()
        return self.product(x_u8).view(*x.shape[:-1], -1)
