"""The vectors of recent texts: people refine a query, and many ask the same."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np


class KeptVectors:
    """At most so many vectors, by text; the one that was not asked for the longest goes first. Safe in several threads.

    Not `functools.lru_cache`, because texts are embedded together, and only those that are missing.
    """

    def __init__(self, most: int) -> None:
        """Keep at most so many; 0 keeps none."""
        self._most, self._lock = most, Lock()
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()

    def get(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors [E] of those texts that are kept."""
        with self._lock:
            found = {text: self._kept[text] for text in texts if text in self._kept}
            for text in found:
                self._kept.move_to_end(text)
        return found

    def put(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep these."""
        with self._lock:
            for text, vector_E in vectors.items():
                self._kept[text] = vector_E.copy()  # a view would keep the vectors of all texts of a batch
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
