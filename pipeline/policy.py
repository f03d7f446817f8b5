"""Pruning policies as data: what to cut, where, and how much. No tensors here.

The reference method keeps, before one block, the `int(p * N)` patch tokens of largest L2 norm and puts one
summary token, the mean of all N, behind the class token.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_POLICY = "reference"
DEFAULT_KEEP_RATIO = 0.7


class PruningPolicy(BaseModel):
    """One cut through an image tower; depth and tokens are fractions, so that one policy fits every tower."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Name shown in tables and written to the store."""

    score: Literal["l2"] = "l2"
    """How important a patch token is: its L2 norm on entering the block."""

    summary: Literal["mean_all"] = "mean_all"
    """What stands for the dropped tokens: the mean over all patch tokens before the cut."""

    depth: float = Field(default=0.25, ge=0.0, lt=1.0)
    """Where to cut, as a fraction of the tower's depth: before block floor(depth * blocks)."""

    keep_ratio: float = Field(default=DEFAULT_KEEP_RATIO, gt=0.0, le=1.0)
    """Fraction p of the N patch tokens kept: int(p * N)."""

    def cut_block(self, num_blocks: int) -> int:
        """Index of the block before which tokens are cut, in a tower of `num_blocks`."""
        return int(self.depth * num_blocks)

    def tokens_kept(self, num_patches: int) -> int:
        """Patch tokens kept of `num_patches`; the same for every image, so that shapes are static."""
        return int(self.keep_ratio * num_patches)


def resolve_policy(name: str, keep_ratio: float | None) -> PruningPolicy | None:
    """Turn `--policy` and `--keep-ratio` into a policy; None stands for the unpruned tower.

    Raises:
        ValueError: If the name is unknown, or a keep ratio comes with `none`.
    """
    if name == "none":
        if keep_ratio is not None:
            raise ValueError("policy 'none' prunes nothing; leave out keep_ratio or choose policy 'reference'")
        return None
    if name == "reference":
        return PruningPolicy(name=name, keep_ratio=DEFAULT_KEEP_RATIO if keep_ratio is None else keep_ratio)
    raise ValueError(f"unknown policy {name!r}; expected 'none' or 'reference'")
