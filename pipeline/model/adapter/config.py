"""The shape of a fusion as data, shared by the settings of `adapt`, adapter files and the maths. Does not use torch."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Target = Literal["q", "k", "v", "o", "mlp"]
Variant = Literal["shared", "shared+head", "independent", "image-only"]
Factors = Literal["free", "singular"]
TARGETS: tuple[str, ...] = get_args(Target)


class FusionConfig(BaseModel):
    """Shape of a fusion: which matrices are updated, and how their updates are tied together."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rank: int = Field(default=8, ge=1)
    """Rank r of every update."""

    alpha: float = Field(default=2.0, gt=0.0)
    """Updates are scaled by alpha / sqrt(rank)."""

    targets: tuple[Target, ...] = ("q", "v")
    """Matrices to update in each block: queries, keys, values, attention output, MLP."""

    variant: Variant = "shared"
    """Shared cores; shared cores and a shared basis for both output projections; separate cores; image tower only."""

    factors: Factors = "free"
    """Learn A and B freely, or fix them to the weight's leading singular vectors and learn a diagonal per tower."""

    @property
    def scale(self) -> float:
        """The factor that scales every update."""
        return self.alpha / self.rank**0.5
