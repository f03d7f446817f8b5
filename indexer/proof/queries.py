"""The queries that tune and prove an index: text vectors, and rows of the index as image queries."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class TextQueries:
    """Text vectors, unit float32 [Q, E]. Those that tune are not among those that prove."""

    tuning_QE: np.ndarray
    proving_QE: np.ndarray
    source: str
    """For people and the manifest: where they come from, and how many."""
    sha256: str
    """Of the proving vectors."""
