"""Where a score stands among those of random images of the store."""

import numpy as np

from indexer.searcher import IndexSearcher

WEAK = 4.0


class Background:
    """What random images of a store score for a query."""

    def __init__(self, index: IndexSearcher) -> None:
        rng = np.random.default_rng(0)
        chosen = np.sort(rng.choice(index.rows.num_rows, min(4096, index.rows.num_rows), replace=False))
        self._sample_SE = index.rows.vectors(chosen)

    def relevance(self, queries_QE: np.ndarray, scores_QK: np.ndarray) -> np.ndarray:
        """Standard deviations above the mean."""
        scores_QS = queries_QE @ self._sample_SE.T
        return (scores_QK - scores_QS.mean(axis=1, keepdims=True)) / scores_QS.std(axis=1, keepdims=True)
