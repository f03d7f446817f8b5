"""The shape of a fusion as data: shared by the settings of `adapt`, the adapter on disk and the maths. No torch."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Target = Literal["q", "k", "v", "o", "mlp"]
Variant = Literal["shared", "shared+head", "independent", "image-only"]
Factors = Literal["free", "singular"]
TARGETS: tuple[str, ...] = get_args(Target)


class FusionConfig(BaseModel):
    """Shape of a fusion: what is updated, and how the updates are tied."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rank: int = Field(default=8, ge=1)
    """Rank r of every update."""

    alpha: float = Field(default=2.0, gt=0.0)
    """Updates are scaled by alpha / sqrt(rank)."""

    targets: tuple[Target, ...] = ("q", "v")
    """Matrices of each block: queries, keys, values, output of attention, the MLP's."""

    variant: Variant = "shared"
    """Cores shared by the towers; those and a basis of both output projections; cores of their own; images alone."""

    factors: Factors = "free"
    """A and B learnt freely; or fixed to the weight's leading singular vectors, with a learnt diagonal per tower."""

    @property
    def scale(self) -> float:
        """What an update is multiplied by."""
        return self.alpha / self.rank**0.5
