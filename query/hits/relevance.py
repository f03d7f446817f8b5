"""Relevance: where a score stands for its query. One line, `WEAK`, fits all queries, models and sizes of store.

No raw score does: it depends on the query, and on the model more than that. Relevance counts from the mean score of the
store's images for the query, in units of what the best of so many images reaches at most by chance:

    relevance = (score - mean of the query) / chance        chance = sqrt(1 - N ** (-2 * spread ** 2))

`spread` is the standard deviation of the scores, and N the number of images. For small spreads, `chance` is
`spread * sqrt(2 * ln N)`, a bound on the mean of the largest of N normal numbers; like a cosine, it never exceeds 1.

The spread of a text's own scores is a poor unit: those of a text about nothing in the store spread less than others, so
that its best hits would look better than they are. So texts share one spread, the mean of the `ORDINARY_TEXTS`.
Without it, and for images as queries, it is that of each query.

Shapes: Q queries, K hits, S sampled rows, E embedding width.
"""

import numpy as np

from indexer.searcher import IndexSearcher
from pipeline.model.text_tower.one_thread import blas_on_one_thread

WEAK = 1.0
"""Hits below are weak matches: chance alone leads as far. Of ten texts about nothing in the store, about one has a hit
above. `tests/drills/search/relevance.py` fixed it with the training images of Flickr8k: 1.015, rounded to a tenth."""
SAMPLE_ROWS = 4_096
MIN_ROWS = 20
"""Mean and spread of fewer say little."""

ORDINARY_TEXTS = (
    "a dog running across the grass",
    "two people walking along the beach",
    "a child playing with a ball",
    "a group of friends sitting around a table",
    "a man riding a bicycle down the street",
    "a woman in a red dress",
    "a portrait of an old man",
    "a cat asleep on a sofa",
    "birds on a branch",
    "horses in a field",
    "a fish",
    "an insect on a flower",
    "mountains at sunset",
    "a lake in the forest",
    "snow on the trees",
    "the sea on a cloudy day",
    "a city street at night",
    "an old church",
    "a bridge over a river",
    "the front of a shop",
    "a kitchen with white walls",
    "a desk with a computer",
    "a bowl of fruit",
    "a plate of food",
    "a cup of coffee",
    "a parked car",
    "a train at the station",
    "a boat on the water",
    "a plane in the sky",
    "a football match",
    "a sign with text on it",
    "a black and white pattern",
)


class Background:
    """What random images of a store score for a query: mean and covariance of a sample of the rows."""

    def __init__(self, index: IndexSearcher, seed: int = 0) -> None:
        """Read the sample.

        Args:
            index: An opened index. Its deleted rows are not in the sample.
            seed: Selects another sample.
        """
        self.num_rows = index.num_rows
        """Rows that can be found."""
        # float64, so that a query has the same spread alone and in a batch, whose products are summed in another order
        sample_SE = index.rows.vectors(_sample_of_live(index, seed)).astype(np.float64)
        is_enough = len(sample_SE) >= MIN_ROWS
        self._mean_E = sample_SE.mean(axis=0) if is_enough else np.full(index.rows.dim, np.nan)
        centred_SE = sample_SE - self._mean_E
        self._covariance_EE = centred_SE.T @ centred_SE / max(1, len(sample_SE))

    def spreads(self, queries_QE: np.ndarray) -> np.ndarray:
        """Standard deviation (float64 [Q]) of the sample's scores for each query."""
        queries_QE = queries_QE.astype(np.float64)
        with blas_on_one_thread():  # the others would spin on after the product, and take a core from the next search
            products_QE = queries_QE @ self._covariance_EE
        return np.sqrt(np.maximum(np.einsum("qe,qe->q", products_QE, queries_QE), 0))

    def relevance(
        self, queries_QE: np.ndarray, scores_QK: np.ndarray, spread: float | np.ndarray | None = None
    ) -> np.ndarray:
        """How far scores lie above what a random image of the store scores; 1 is as far as chance leads.

        Args:
            queries_QE: Unit vectors.
            scores_QK: Scores of their hits.
            spread: The spread of ordinary queries of this kind, one for all or one for each query ([Q], NaN for its
                own): for texts, the mean of `spreads` of the vectors of `ORDINARY_TEXTS`. None for each query's own.

        Returns:
            float32 [Q, K], in the order of the scores. NaN where it cannot be told: in a store of fewer than `MIN_ROWS`
            images, or if all of them score the same.
        """
        spread_Q = np.broadcast_to(np.nan if spread is None else spread, len(queries_QE))
        if np.isnan(spread_Q).any():
            spread_Q = np.where(np.isnan(spread_Q), self.spreads(queries_QE), spread_Q)
        chance_Q = np.sqrt(-np.expm1(-2 * np.log(max(1, self.num_rows)) * spread_Q**2))
        chance_Q[chance_Q < 1e-6] = np.nan  # what is left of equal scores is rounding
        above_QK = scores_QK - np.einsum("qe,e->q", queries_QE, self._mean_E.astype(np.float32))[:, None]
        return (above_QK / chance_Q[:, None]).astype(np.float32)


def _sample_of_live(index: IndexSearcher, seed: int) -> np.ndarray:
    """Positions (int64, ascending) of random rows that are not deleted."""
    rng = np.random.default_rng(seed)
    ranks = np.sort(rng.choice(index.num_rows, min(SAMPLE_ROWS, index.num_rows), replace=False, shuffle=False))
    # a live row's position is its rank among the live ones and the number of deleted rows before it
    return ranks + np.searchsorted(index.dead - np.arange(len(index.dead)), ranks, side="right")
