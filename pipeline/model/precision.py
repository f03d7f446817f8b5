"""In which precision a tower is computed, and by which kernels: the choices, and what `probe` measured of them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Precision = Literal["fp32", "bf16", "fp16", "int8", "fp8"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16", "int8", "fp8", "8bit"]
"""`8bit` is int8 on a CPU and fp8 on a GPU. `auto` never takes either: they cost recall."""

Kernels = Literal["torch", "onednn"]
"""How a CPU computes bf16: with torch's own kernels, or with our attention and oneDNN's linear layers. In int8, it is
about attention alone: `torch` computes it in float32, and `onednn` in bf16."""

EIGHT_BITS = ("int8", "fp8", "8bit")
"""What has to be asked for: it is faster and costs recall."""

MIN_COSINE = 0.97
"""Least mean cosine of int8 to float, unless the user asks for more. Above it, R@1+5+10 was about a point lower at most
on the reference model; at 0.90 it was eight points lower."""

MIN_GAIN = 1.05
"""How many times faster than those before it a candidate must be."""


class Candidate(BaseModel):
    """A way to compute a tower."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision
    kernels: Kernels = "torch"

    def __str__(self) -> str:
        return self.precision if self.kernels == "torch" else f"{self.precision} by {self.kernels}"


class Measurement(BaseModel):
    """The result of a probe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chosen: Candidate
    """The fastest; of a loaded model, how it is computed."""
    speeds: dict[str, float]
    """Median speed of each candidate, with float32 as 1. Empty if nothing was measured."""
    is_disturbed: bool = False
    """Whether rounds still differed by more than `probe.MAX_SPREAD` after a repetition."""

    def kernels_in(self, precision: Precision) -> Kernels:
        """The faster kernels in a precision: ours only if they win clearly."""
        ours, torchs = (str(Candidate(precision=precision, kernels=kernels)) for kernels in ("onednn", "torch"))
        return "onednn" if self.speeds.get(ours, 0) > MIN_GAIN * self.speeds.get(torchs, 0) else "torch"

    def gain_of_8_bits(self) -> float | None:
        """How many times faster 8 bits are than the fastest float type; None if they were not measured."""
        eight = [speed for name, speed in self.speeds.items() if name.startswith(EIGHT_BITS)]
        others = [speed for name, speed in self.speeds.items() if not name.startswith(EIGHT_BITS)]
        return max(eight) / max(others) if eight else None

    def for_training(self) -> Precision:
        """The faster precision to train in. Gradients underflow in fp16, and oneDNN's kernels here compute none."""
        return "bf16" if self.speeds.get("bf16", 1.0) > MIN_GAIN else "fp32"

    def describe(self) -> str:
        """One line: what was chosen, and how fast the candidates are."""
        if not self.speeds:
            return f"{self.chosen}, not measured"
        speeds = ", ".join(f"{name} {speed:.2f}" for name, speed in self.speeds.items())
        noise = "; other load disturbed the measurement" if self.is_disturbed else ""
        return f"{self.chosen} (speed relative to fp32: {speeds}{noise})"
