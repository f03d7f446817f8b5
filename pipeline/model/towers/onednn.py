"""oneDNN's kernels where torch's default ones are slower: on some CPUs in bf16, with gradients disabled.

Each tower is told whether it uses them (`use`), as the probe of its device found.

`F.linear` copies the bias into its result before it multiplies, and converts the weight to oneDNN's layout at every
call. A GELU after it reads and writes the whole result again. torch's softmax of bf16 rows takes twice as long as
oneDNN's. The operators used here are the ones that torch's own compiler calls. DECISIONS.md lists what they save and
how much memory they hold.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from pipeline.model.precision import Kernels

# per weight: its version, and a copy in oneDNN's layout per range of rows; modules that share a weight share the copies
_packed_weights: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def use(visual: nn.Module, kernels: Kernels) -> None:
    """Have an image tower computed with these kernels, where it is computed in bf16 on a CPU."""
    visual.bf16_kernels = kernels  # on the module, so that copies and other processes compute alike


def kernels_of(visual: nn.Module) -> Kernels:
    """The kernels for bf16 on a CPU that an image tower was given; oneDNN's without a choice."""
    return getattr(visual, "bf16_kernels", "onednn")


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: slice = slice(None),
    gelu: str | None = None,
    kernels: Kernels = "onednn",
) -> Tensor:
    """`F.linear` with some rows of a weight, then a GELU if `gelu` names its approximation: `none` or `tanh`."""
    bias = None if bias is None else bias[rows]
    if kernels == "onednn" and _applies(x):
        packed = _packed(weight, rows)
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "gelu" if gelu else "none", [], gelu or "")
    result = F.linear(x, weight[rows], bias)
    return F.gelu(result, approximate=gelu) if gelu else result


def softmax(logits: Tensor) -> Tensor:
    """Softmax over the last dimension."""
    return logits.to_mkldnn().softmax(dim=-1).to_dense() if _applies(logits) else logits.softmax(dim=-1)


def linear_forward(module: nn.Linear, gelu: str | None, x: Tensor) -> Tensor:
    """A replacement for the `forward` of a linear module."""
    return linear(x, module.weight, module.bias, gelu=gelu)


def suits(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN computes tensors of this type on this machine."""
    return device.type == "cpu" and dtype == torch.bfloat16 and computes_bf16()


@cache
def computes_bf16() -> bool:
    """Whether oneDNN computes bf16 on this machine."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _applies(x: Tensor) -> bool:
    return suits(x.device, x.dtype) and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _packed(weight: Tensor, rows: slice) -> Tensor:
    version, packed = _packed_weights.get(weight, (None, {}))
    if version != weight._version:  # new, or changed in place (by training)
        version, packed = weight._version, {}
        _packed_weights[weight] = version, packed
    key = rows.start, rows.stop
    if key not in packed:
        packed[key] = torch.ops.mkldnn._reorder_linear_weight(weight[rows])
    return packed[key]
