"""Raw files small enough to compare value by value."""

import numpy as np
import pytest

from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.head import RawHead


@pytest.fixture
def head():
    """The head of the answers of a condition."""
    return RawHead(
        kind="ranks",
        condition="l2-12345678",
        fingerprint="f" * 64,
        data="flickr8k",
        data_sha256="d" * 64,
        environment_key="e" * 16,
        settings={"k": 3, "epsilon": 0.001},
    )


def answers_of(num_queries, seed=0):
    """Made-up answers; the first query has no right item, and only two items were found."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 1000, (4, num_queries)).astype(np.int32)
    best = rng.random(num_queries).astype(np.float32)
    ids = rng.integers(0, 1000, (num_queries, 3)).astype(np.int32)
    scores = rng.random((num_queries, 3)).astype(np.float32)
    best[0], ids[0, 2], scores[0, 2] = np.nan, -1, -np.inf
    return Answers(
        best_Q=best,
        above_Q=counts[0],
        tied_Q=counts[1],
        tied_right_Q=counts[2],
        above_epsilon_Q=counts[3],
        unlike_Q=counts[0] + 1,
        ids_QK=ids,
        scores_QK=scores,
    )


@pytest.fixture
def by_task():
    """Answers of two tasks with different numbers of queries."""
    return {"image_retrieval": answers_of(50), "text_retrieval": answers_of(10, seed=1)}
