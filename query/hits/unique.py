"""Leave out near-duplicates of better hits.

Shapes: Q queries, C candidates (best first), E embedding width.
"""

from collections.abc import Callable

import numpy as np


def near_duplicates(
    ids_QC: np.ndarray, is_hit_QC: np.ndarray, cosine: float, vectors: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """For each candidate, the place (int64 [Q, C]) of the better hit that it repeats, or -1 if it stands for itself.

    Goes from the best to the worst, and compares each with those before it that repeat nothing. So a chain of images,
    each similar only to the next, does not collapse into one.

    Args:
        ids_QC: Ids, best first.
        is_hit_QC: Which of them count.
        cosine: From which on two images are near-duplicates.
        vectors: Unit vectors float32 [n, E] of ids [n].
    """
    found_QC = np.full(ids_QC.shape, -1, np.int64)
    for ids, is_hit, found in zip(ids_QC, is_hit_QC, found_QC, strict=True):
        places = np.flatnonzero(is_hit)
        vectors_CE = vectors(ids[places])
        similar_CC = vectors_CE @ vectors_CE.T >= cosine
        is_kept_C = np.zeros(len(places), bool)
        for number, place in enumerate(places):
            is_same_C = similar_CC[number] & is_kept_C
            best = is_same_C.argmax()  # the first one, if there is any
            if is_same_C[best]:
                found[place] = places[best]
            else:
                is_kept_C[number] = True
    return found_QC
