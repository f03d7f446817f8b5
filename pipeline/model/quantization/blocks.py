"""A tower whose plain blocks are computed by 8-bit products. Implements `BlockRunner`.

In a block, LayerNorm writes what it hands on in the scale of the next product, so rounding is a clamp and a cast. The
GELU and its rounding happen inside the product of `fc1`; `proj` and `fc2` add to the residual stream themselves.
Attention and the residual stream are float32; attention is bf16 where oneDNN computes that faster.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.model.quantization.products import Int8Linear, Range, quantize, to_u8
from pipeline.model.quantization.shared import shared
from pipeline.model.towers import onednn
from pipeline.model.towers.attention import attend
from pipeline.model.towers.parts import BlockParts, Linear, activate
from pipeline.model.towers.tower import Tower

SITES = ("qkv", "proj", "fc1", "fc2")
"""The linear layers of a plain block."""

CACHED_BYTES = 2**23
"""A block is computed for as many images at once as keep their queries, keys and values within this, so in a cache."""


class Int8Tower:
    """Runs the plain blocks of a tower by 8-bit products, and its other blocks as they are."""

    @torch.no_grad()
    def __init__(self, tower: Tower, ranges: Mapping[str, Range]) -> None:
        """Round the weights of every plain block.

        Args:
            tower: The tower, with weights in float32 on a CPU.
            ranges: By `<number of the block>.<site>`, how the inputs of its linear layers are rounded. Blocks without
                stay in float.
        """
        self._tower = tower
        self._blocks: dict[nn.Module, Int8Block] = {}
        for number, block in enumerate(tower.blocks):
            parts = tower.parts(block) if f"{number}.qkv" in ranges else None
            if parts:
                own = {site: ranges[f"{number}.{site}"] for site in SITES}
                make = partial(Int8Block, tower, block, parts, own)
                weights = (*block.parameters(), *block.buffers())
                self._blocks[block] = shared((Int8Block, tower.kernels), weights, tuple(own.values()), make)

    def run_block(
        self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """The output of the block, float32; see `Tower.run_block`."""
        if block not in self._blocks:
            return self._tower.run_block(block, x_BTD, log_sizes_BT, rope)
        return self._blocks[block].run(x_BTD, log_sizes_BT, rope)

    def class_token_block(
        self, block: nn.Module, x_BTD: Tensor, log_sizes_BT: Tensor | None = None, rope: Tensor | None = None
    ) -> Tensor:
        """The output of the block for the class token only, float32; see `Tower.class_token_block`."""
        if block not in self._blocks:
            return self._tower.class_token_block(block, x_BTD, log_sizes_BT, rope)
        return self._blocks[block].class_token(x_BTD, log_sizes_BT, rope)


class Int8Block:
    """One plain block by 8-bit products."""

    def __init__(self, tower: Tower, block: nn.Module, parts: BlockParts, ranges: Mapping[str, Range]) -> None:
        """Round its weights. `ranges` has the four `SITES`."""
        self._tower, self._block, self._ranges = tower, block, ranges
        is_bf16 = tower.kernels == "onednn" and onednn.suits(torch.device("cpu"), torch.bfloat16)
        self._attention_dtype = torch.bfloat16 if is_bf16 else torch.float32
        self._qkv_linear = _smoothed_values(parts.qkv, ranges["proj"].smooth_K)
        self._norm1, self._norm2 = _Norm8(parts.norm1, ranges["qkv"]), _Norm8(parts.norm2, ranges["fc1"])
        self._qkv = {"qkv": Int8Linear(self._qkv_linear, ranges["qkv"])}
        self._proj = Int8Linear(parts.proj, ranges["proj"])
        self._mixed_range = replace(ranges["proj"], smooth_K=None)
        self._fc1 = Int8Linear(parts.fc1, ranges["fc1"], parts.activation)
        self._fc2 = Int8Linear(parts.fc2, ranges["fc2"])
        self._outliers = _Outliers.of(parts, ranges)

    def run(self, x_BTD: Tensor, log_sizes_BT: Tensor | None, rope: Tensor | None) -> Tensor:
        """The output of the block."""
        x_BTD = x_BTD.clone(memory_format=torch.contiguous_format)  # a patch embedding may give them transposed
        num_images = max(1, CACHED_BYTES // (x_BTD.shape[1] * len(self._qkv_linear.weight_NK) * x_BTD.element_size()))
        for start in range(0, len(x_BTD), num_images):
            part = slice(start, start + num_images)
            sizes_bT = None if log_sizes_BT is None else log_sizes_BT[part]
            self._change(x_BTD[part], sizes_bT, rope[part] if rope is not None and rope.dim() == 4 else rope)
        return x_BTD

    def _change(self, x_BTD: Tensor, log_sizes_BT: Tensor | None, rope: Tensor | None) -> None:
        """Turn what enters the block into its output, in place."""
        query, key, value = self._heads(self._norm1(x_BTD), "qkv")
        query, key = self._tower.rotate(self._block, query, rope), self._tower.rotate(self._block, key, rope)
        self._finish(x_BTD, attend(query, key, value, log_sizes_BT, self._tower.kernels))

    def class_token(self, x_BTD: Tensor, log_sizes_BT: Tensor | None, rope: Tensor | None) -> Tensor:
        """The output of the block for the class token, [B, 1, D]."""
        normed_BTD = self._norm1(x_BTD)
        [query] = self._heads(normed_BTD[:, :1].contiguous(), "q")
        key, value = self._heads(normed_BTD, "kv")
        mixed = attend(query, self._tower.rotate(self._block, key, rope), value, log_sizes_BT, self._tower.kernels)
        return self._finish(x_BTD[:, :1].clone(memory_format=torch.contiguous_format), mixed)

    def _heads(self, normed_BTD: Tensor, names: str) -> list[Tensor]:
        if names not in self._qkv:  # only the last block needs them apart
            self._qkv[names] = Int8Linear(self._qkv_linear.rows(names), self._ranges["qkv"])
        return self._tower.split_heads(self._block, self._qkv[names](normed_BTD, self._attention_dtype), names)

    def _finish(self, x_BTD: Tensor, mixed_BHTE: Tensor) -> Tensor:
        """The rest of the block after attention. Changes `x_BTD`, which must be contiguous."""
        self._proj.add_to(x_BTD, quantize(mixed_BHTE.transpose(1, 2).flatten(2), self._mixed_range))
        normed_BTD = self._norm2(x_BTD)
        if self._outliers:
            self._outliers.add_to(x_BTD, normed_BTD)
        self._fc2.add_to(x_BTD, self._fc1.rounded(normed_BTD, self._ranges["fc2"]))
        return x_BTD


class _Outliers:
    """The few channels of an MLP that would stretch the range of all the others: the same layers, in float32."""

    def __init__(self, parts: BlockParts, ranges: Mapping[str, Range], channels_M: Tensor) -> None:
        bias_N = parts.fc1.bias_N
        rows = Linear(weight_NK=parts.fc1.weight_NK[channels_M], bias_N=None if bias_N is None else bias_N[channels_M])
        self._fc1, self._activation = Int8Linear(rows, ranges["fc1"]), parts.activation
        self._weight_MN = parts.fc2.weight_NK.detach().float()[:, channels_M].T.contiguous()

    @classmethod
    def of(cls, parts: BlockParts, ranges: Mapping[str, Range]) -> "_Outliers | None":
        """Those of a block, if it has any."""
        channels_M = ranges["fc2"].outliers_M
        return None if channels_M is None else cls(parts, ranges, channels_M)

    def add_to(self, residual_BTD: Tensor, normed_BTD: Tensor) -> None:
        """Add their share of the output of the MLP, in place."""
        hidden_BTM = activate(self._activation, self._fc1(normed_BTD))
        residual_BTD.flatten(0, 1).addmm_(hidden_BTM.flatten(0, 1), self._weight_MN)


class _Norm8:
    """A LayerNorm whose output is rounded to uint8: its weights take over the scale, its bias the zero point."""

    def __init__(self, norm: nn.LayerNorm, found: Range) -> None:
        divisor = found.scale if found.smooth_K is None else found.scale * found.smooth_K
        weight = torch.ones(norm.normalized_shape) if norm.weight is None else norm.weight.detach().float()
        bias = torch.zeros(norm.normalized_shape) if norm.bias is None else norm.bias.detach().float()
        self._weight, self._bias = weight / divisor, bias / divisor + found.zero_point + 0.5
        self._shape, self._eps = norm.normalized_shape, norm.eps

    def __call__(self, x_BTD: Tensor) -> Tensor:
        return to_u8(F.layer_norm(x_BTD.float(), self._shape, self._weight, self._bias, self._eps))


def _smoothed_values(qkv: Linear, smooth_D: Tensor | None) -> Linear:
    """The layer with its values divided by a number per channel. Attention averages values, so its output is, too."""
    if smooth_D is None:
        return qkv
    factor_N = torch.ones(len(qkv.weight_NK))
    factor_N[-len(smooth_D) :] = 1 / smooth_D
    return qkv.scaled(factor_N)
