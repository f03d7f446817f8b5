"""The parts of a plain pre-norm block, as plain weights: what a kernel needs to compute the block itself."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

Activation = Literal["none", "tanh", "quick"]
"""GELU: exact, with tanh, or QuickGELU, x * sigmoid(1.702 x)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Weights of a linear layer: [N, K] and [N]."""

    weight_NK: Tensor
    bias_N: Tensor | None

    @classmethod
    def of(cls, module: nn.Linear) -> "Linear":
        """The weights of a module."""
        return cls(weight_NK=module.weight, bias_N=module.bias)

    def rows(self, names: str) -> "Linear":
        """Of a joint projection: the rows of the queries, keys or values that a substring of "qkv" names."""
        width = len(self.weight_NK) // 3
        rows = slice("qkv".index(names[0]) * width, ("qkv".index(names[-1]) + 1) * width)
        return Linear(weight_NK=self.weight_NK[rows], bias_N=None if self.bias_N is None else self.bias_N[rows])

    def scaled(self, scale_N: Tensor | None) -> "Linear":
        """The layer with its output multiplied by a factor per channel (a layer scale), if there is one."""
        if scale_N is None:
            return self
        bias_N = None if self.bias_N is None else self.bias_N * scale_N
        return Linear(weight_NK=self.weight_NK * scale_N[:, None], bias_N=bias_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockParts:
    """x + proj(attention(qkv(norm1(x)))), then x + fc2(gelu(fc1(norm2(x)))); layer scales are in `proj` and `fc2`."""

    norm1: nn.LayerNorm
    qkv: Linear
    proj: Linear
    norm2: nn.LayerNorm
    fc1: Linear
    activation: Activation
    fc2: Linear


class BlockRunner(Protocol):
    """Computes blocks of a tower. A `Tower` is one, in the type of its weights."""

    def run_block(
        self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """The output of the block; see `Tower.run_block`."""

    def class_token_block(
        self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """The output of the block for the class token only; see `Tower.class_token_block`."""


def activation_of(module: nn.Module) -> Activation | None:
    """Which GELU a module is; None if it is something else."""
    if type(module) is QuickGELU:
        return "quick"
    return module.approximate if type(module) is nn.GELU else None


def activate(activation: Activation, x: Tensor) -> Tensor:
    """The GELU of a block."""
    if activation == "quick":
        return x * torch.sigmoid(1.702 * x)
    return nn.functional.gelu(x, approximate=activation)
