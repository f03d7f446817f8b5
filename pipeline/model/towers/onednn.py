"""oneDNN's kernels where torch's default ones are slower: on CPUs in bf16, while no gradients are taken.

`F.linear` copies the bias into its result before it multiplies, and brings the weight into oneDNN's layout at every
call; a GELU after it reads and writes all of its result again; torch's softmax of bf16 rows takes twice oneDNN's time.
The operators are those that torch's own compiler calls. See DECISIONS.md for what they save, and what they hold.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

# by weight: its version, and by rows their copy in oneDNN's layout; one set for all modules that share the weight
_packed_weights: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, rows: slice = slice(None), gelu: str | None = None
) -> Tensor:
    """`F.linear` by some rows of a weight; after it a GELU, where its approximation is named: `none` or `tanh`."""
    bias = None if bias is None else bias[rows]
    if _applies(x):
        packed = _packed(weight, rows)
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "gelu" if gelu else "none", [], gelu or "")
    result = F.linear(x, weight[rows], bias)
    return F.gelu(result, approximate=gelu) if gelu else result


def softmax(logits: Tensor) -> Tensor:
    """Softmax over the last dimension."""
    return logits.to_mkldnn().softmax(dim=-1).to_dense() if _applies(logits) else logits.softmax(dim=-1)


def linear_forward(module: nn.Linear, gelu: str | None, x: Tensor) -> Tensor:
    """What to put in the place of a linear module's `forward`."""
    return linear(x, module.weight, module.bias, gelu=gelu)


def suits(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensors of this kind are computed by oneDNN here."""
    return device.type == "cpu" and dtype == torch.bfloat16 and _computes_bf16()


@cache
def _computes_bf16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _applies(x: Tensor) -> bool:
    return suits(x.device, x.dtype) and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _packed(weight: Tensor, rows: slice) -> Tensor:
    version, packed = _packed_weights.get(weight, (None, {}))
    if version != weight._version:  # new, or changed in place: training does that
        version, packed = weight._version, {}
        _packed_weights[weight] = version, packed
    key = rows.start, rows.stop
    if key not in packed:
        packed[key] = torch.ops.mkldnn._reorder_linear_weight(weight[rows])
    return packed[key]
