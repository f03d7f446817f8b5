"""What recall costs, as curves: of a pilot on a sample of the vectors, or as is typical."""

import math
from dataclasses import dataclass

import numpy as np

_LEAST_MISS = 1e-4

Curve = tuple[tuple[float, float], ...]
"""Pairs of a cost and the recall@10 that it buys, both ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """Curves of a sample."""

    num_rows: int
    num_lists: int
    lists: Curve
    """Share of the rows that are scanned, and recall."""
    codes: dict[str, Curve]
    """Candidates, and recall, by the names of `sizes.CODES`."""
    graph_rows: int = 0
    graph: Curve = ()
    """efSearch, and recall; empty if there was no time to build a graph."""
    source: str = "measured on these vectors"


TYPICAL = Pilot(
    num_rows=113_802,
    num_lists=1_012,
    lists=((0.0005, 0.3), (0.0067, 0.8), (0.0176, 0.9), (0.0382, 0.95), (0.0821, 0.98), (0.1567, 0.99), (0.4, 0.999)),
    codes={
        "fp32": ((10, 1.0),),
        "fp16": ((10, 1.0),),
        "SQ8": ((10, 0.985), (12, 0.995), (20, 1.0)),
        "RaBitQ4": ((10, 0.89), (12, 0.95), (15, 0.98), (17, 0.995), (30, 1.0)),
        "RaBitQ2": ((10, 0.655), (20, 0.864), (50, 0.972), (100, 0.996), (200, 0.9997)),
        "PQ4": ((10, 0.54), (20, 0.74), (50, 0.914), (100, 0.971), (200, 0.991), (300, 0.995), (400, 0.998)),
    },
    graph_rows=113_802,
    graph=((64, 0.917), (128, 0.958), (256, 0.981), (512, 0.993), (1024, 0.998)),
    source="typical of text queries on image vectors; not measured on these",
)
"""Measured with 400 captions as queries on 113,802 real image vectors of a ViT-Ti/16, 192 wide."""


def cost_of(curve: Curve, recall: float) -> float:
    """The cost of a recall, between the points of a curve or at its ends."""
    costs, recalls = zip(*curve, strict=True)
    return float(np.exp(np.interp(_hardness(recall), [_hardness(value) for value in recalls], np.log(costs))))


def recall_of(curve: Curve, cost: float) -> float:
    """The recall that a cost buys; 0 if it is less than the first point's, unless that point loses nothing."""
    costs, recalls = zip(*curve, strict=True)
    if cost < costs[0] and recalls[0] < 1:
        return 0.0
    hardness = np.interp(math.log(cost), np.log(costs), [_hardness(value) for value in recalls])
    return min(1.0, 1 - math.exp(-float(hardness)) + _LEAST_MISS)


def _hardness(recall: float) -> float:
    """Recall on a scale on which curves are nearly straight."""
    return -math.log(max(0.0, 1 - recall) + _LEAST_MISS)
