"""Groups of near-duplicates.

Shapes: N vectors, E embedding width.
"""

import numpy as np

BLOCK_ROWS = 2_048


def near_duplicate_groups(vectors_NE: np.ndarray, cosine: float) -> np.ndarray:
    """The group of each vector: the place (int64 [N]) of the vector that leads it.

    Goes from the first to the last. Each joins the first leader that it is a near-duplicate of, or leads a group of its
    own. So a chain of images, each similar only to the next, does not collapse into one. Memory is bounded; time is
    that of all pairs.

    Args:
        vectors_NE: Unit vectors, float16 or float32; may be a memory map.
        cosine: From which on two are near-duplicates.
    """
    leaders_N = np.full(len(vectors_NE), -1, np.int64)
    for start in range(0, len(vectors_NE), BLOCK_ROWS):
        block = vectors_NE[start : start + BLOCK_ROWS].astype(np.float32)
        own = leaders_N[start : start + BLOCK_ROWS]
        for first in range(0, start, BLOCK_ROWS):
            earlier = slice(first, first + BLOCK_ROWS)
            leads = leaders_N[earlier] == np.arange(first, first + BLOCK_ROWS)
            similar = (block @ vectors_NE[earlier].astype(np.float32).T >= cosine) & leads
            joins = (own < 0) & similar.any(axis=1)
            own[joins] = first + similar[joins].argmax(axis=1)
        _lead(own, np.tril(block @ block.T >= cosine, -1), start)
    return leaders_N


def _lead(own: np.ndarray, similar: np.ndarray, start: int) -> None:
    """Settle the vectors of a block that joined no earlier one. `similar` has those before each, in this block."""
    places = start + np.arange(len(own))
    has_similar = similar.any(axis=1)
    alone = (own < 0) & ~has_similar
    own[alone] = places[alone]
    for row in np.flatnonzero((own < 0) & has_similar):
        leads = np.flatnonzero(similar[row] & (own == places))
        own[row] = start + (leads[0] if len(leads) else row)
