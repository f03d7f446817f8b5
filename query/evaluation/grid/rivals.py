"""The rivals: the simple alternatives that every sweep measures beside its own conditions."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.model.load import input_side
from pipeline.model.pruning.policy import Constant, CutPoint, PruningPolicy, Stages, named_policy
from pipeline.yaml_file import Loc
from query.evaluation.grid.keys import GridKeys

REFERENCE = "reference method"
RANDOM = "random dropping"
GRID = "grid dropping"
MERGING = "bipartite merging"
SMALLER = "down-scaled input"
SERIES = (SMALLER, RANDOM, GRID, MERGING, REFERENCE)


@dataclass(frozen=True, slots=True)
class Rival:
    """One rival at one strength."""

    series: str
    name: str
    policy: PruningPolicy | None
    image_size: int | None
    loc: Loc
    """The key that asks for it."""


def rivals(keys: GridKeys) -> Iterator[Rival]:
    """Every rival at every strength. Down-scaled input also gets the saving that costs no recall."""
    at = "rivals"
    side, patch = input_side(keys.model.model) or (224, 16)  # loading the model says what is wrong with it
    for place, share in enumerate(keys.rivals.image_sizes):
        size = max(1, round(share * side / patch)) * patch
        if size < side:
            yield Rival(SMALLER, f"{size} px", named_policy("lossless"), size, (at, "image_sizes", place))
    for place, keep in enumerate(keys.rivals.keeps):
        loc: Loc = (at, "keeps", place)
        for series, score in ((RANDOM, "random"), (GRID, "grid"), (REFERENCE, "l2")):
            name = f"{'reference' if series == REFERENCE else score}, keep {keep:g}"
            yield Rival(series, name, _one_cut(name, score, keep), None, loc)
    for place, removed in enumerate(keys.rivals.removed):
        name, schedule = f"bipartite, {100 * removed:.3g} % a block", Constant(removed=removed)
        merging = PruningPolicy(name=name, reduce="bipartite", size_weight=1.0, schedule=schedule)
        yield Rival(MERGING, name, merging, None, (at, "removed", place))


def _one_cut(name: str, score: str, keep: float) -> PruningPolicy:
    """The reference policy with another score and strength: only what is compared differs."""
    reference = named_policy("reference")
    depth = reference.schedule.cuts[0].depth
    return reference.model_copy(
        update={"name": name, "score": score, "schedule": Stages(cuts=(CutPoint(depth=depth, keep=keep),))}
    )
