"""The linear layers of an image tower by FP8 products, for GPUs. Home of torch's scaled products.

Weights have one scale per output channel and are converted once. Activations have one scale per row, found as they
come, so nothing is calibrated and an embedding does not depend on its batch. All else is bf16.

Shapes: R rows, K input channels, N output channels.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.model.pruning.attach import OnCut, attach
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.towers.families import unprunable_reason, view_of
from pipeline.model.towers.parts import Linear
from pipeline.model.towers.tower import Tower

MAX_FP8 = 448.0
"""The largest number of `float8_e4m3fn`."""

ROW_SCALES_CAPABILITY = (9, 0)
"""The first GPUs whose products take a scale per row."""

_MULTIPLE = 16
"""Inputs and outputs of a scaled product come in multiples of this; other layers stay in bf16."""


class Fp8Linear:
    """A linear layer on bf16 inputs, which it rounds to FP8."""

    @torch.no_grad()
    def __init__(self, linear: Linear, scales_inside: bool) -> None:
        """Round the weights.

        Args:
            linear: The layer.
            scales_inside: Whether the product applies the scales itself; else they are applied to its output.
        """
        weight_NK = linear.weight_NK.detach().float()
        scale_N = weight_NK.abs().amax(dim=1).clamp(min=1e-12) / MAX_FP8
        self._weight_NK = (weight_NK / scale_N[:, None]).to(torch.float8_e4m3fn)
        self._scale_1N = scale_N[None, :]
        self._bias_N = None if linear.bias_N is None else linear.bias_N.detach().bfloat16()
        self._scales_inside = scales_inside
        self._one = torch.ones((), device=weight_NK.device)

    def __call__(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """The output of some output channels: bf16 [..., N]."""
        x_RK = x.flatten(0, -2)
        scale_R1 = x_RK.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / MAX_FP8
        rounded_RK = (x_RK.float() / scale_R1).to(torch.float8_e4m3fn)
        weight_KN, scale_1N = self._weight_NK[rows].t(), self._scale_1N[:, rows]
        bias_N = None if self._bias_N is None else self._bias_N[rows]
        product = partial(torch._scaled_mm, rounded_RK, weight_KN, out_dtype=torch.bfloat16)
        if self._scales_inside:
            output_RN = product(scale_a=scale_R1, scale_b=scale_1N, bias=bias_N, use_fast_accum=True)
        else:
            output_RN = product(scale_a=self._one, scale_b=self._one, use_fast_accum=True).float() * scale_R1 * scale_1N
            output_RN = (output_RN if bias_N is None else output_RN + bias_N).bfloat16()
        return output_RN.unflatten(0, x.shape[:-1])


class Fp8Blocks:
    """The linear layers of a tower's blocks, until `detach`. Blocks run as the tower's view writes them out."""

    @torch.no_grad()
    def __init__(self, tower: Tower) -> None:
        """Round the weights of all blocks of the view, which are in bf16."""
        device = tower.qkv(tower.blocks[0]).weight_NK.device
        scales_inside = device.type != "cuda" or torch.cuda.get_device_capability(device) >= ROW_SCALES_CAPABILITY
        self._joint: dict[nn.Module, Fp8Linear] = {}
        self._modules: list[nn.Module] = []
        tower.heads = partial(self._heads, tower)  # hides the method of the class, in this view only
        for block in tower.blocks:
            joint = tower.qkv(block)
            if _suits(joint.weight_NK):
                self._joint[block] = Fp8Linear(joint, scales_inside)
            for module in tower.other_linears(block):
                if _suits(module.weight):
                    module.forward = Fp8Linear(Linear.of(module), scales_inside).__call__
                    self._modules.append(module)

    def detach(self) -> None:
        """Have the layers computed in bf16 again; calling it twice is harmless."""
        for module in self._modules:
            vars(module).pop("forward", None)

    def _heads(self, tower: Tower, block: nn.Module, normed_BTD: Tensor, parts: str) -> list[Tensor]:
        if block not in self._joint:
            return type(tower).heads(tower, block, normed_BTD, parts)
        width = len(tower.qkv(block).weight_NK) // 3
        rows = slice("qkv".index(parts[0]) * width, ("qkv".index(parts[-1]) + 1) * width)
        return tower.split_heads(block, self._joint[block](normed_BTD, rows), parts)


def attach_fp8(
    visual: nn.Module,
    policy: PruningPolicy | None,
    on_cut: OnCut | None = None,
    summary_offsets_LD: Tensor | None = None,
    counts: list[int] | None = None,
) -> Callable[[], None]:
    """Make an image tower compute the linear layers of its blocks in FP8, and prune its tokens by a policy.

    The arguments are those of `attach`; weights are in bf16.

    Returns:
        `detach`, which restores the tower exactly; calling it twice is harmless.

    Raises:
        InputError: If FP8 products compute no layer of it; see `refuse_without_fp8`.
    """
    refuse_without_fp8(visual)
    tower = view_of(visual)
    blocks = Fp8Blocks(tower)
    detach = attach(visual, policy, on_cut, summary_offsets_LD, counts, tower)

    def detach_all() -> None:
        detach()
        blocks.detach()

    return detach_all


def refuse_without_fp8(visual: nn.Module) -> None:
    """Refuse an image tower that would run in bf16 as a whole: one that cannot be pruned, or whose layers do not suit.

    Raises:
        InputError: If it is such a tower.
    """
    reason = unprunable_reason(visual)
    if not reason and not any(map(_suits, _weights_of(view_of(visual)))):
        reason = f"none of its layers has inputs and outputs in multiples of {_MULTIPLE}"
    if reason:
        raise InputError(f"precision fp8: the blocks of this image tower cannot be computed in FP8: {reason}; use bf16")


def _weights_of(tower: Tower) -> Iterator[Tensor]:
    for block in tower.blocks:
        yield tower.qkv(block).weight_NK
        yield from (module.weight for module in tower.other_linears(block))


def _suits(weight_NK: Tensor) -> bool:
    return all(size % _MULTIPLE == 0 for size in weight_NK.shape)
