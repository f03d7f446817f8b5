"""Agreement of a condition with the baseline, without labels: of the first hits, and of the image vectors.

Shapes: Q queries, K best hits, N images.
"""

import numpy as np

from query.hits.compare import PERSISTENCE

OVERLAPS = (10, 100)
_CHUNK = 4096


def fidelity(ids_QK: np.ndarray, baseline_QK: np.ndarray, cosines_N: np.ndarray | None) -> dict[str, float]:
    """How much a condition agrees with the baseline; 1 is fully.

    Args:
        ids_QK: The best items of each query under the condition, best first; -1 where the gallery has no more.
        baseline_QK: The same under the baseline.
        cosines_N: Cosine of each image vector to the baseline's; None where that means nothing.

    Returns:
        `overlap@10` and `overlap@100`: mean share of the first 10 or 100 hits that both have, if the lists are that
        long. `rank_biased_overlap`: mean over queries, as `search --store2` shows it. `cosine_mean`, `cosine_p5`,
        `cosine_p50` and `cosine_min`.
    """
    # an index may find fewer for some queries
    depth = min(int((ids >= 0).any(axis=0).sum()) for ids in (ids_QK, baseline_QK))
    shared_QK = shared_by_depth(ids_QK[:, :depth], baseline_QK[:, :depth])
    found = {f"overlap@{k}": float(shared_QK[:, k - 1].mean() / k) for k in OVERLAPS if k <= depth}
    if depth:
        found["rank_biased_overlap"] = float(rank_biased_overlaps(shared_QK).mean())
    if cosines_N is not None:
        p5, p50 = np.quantile(cosines_N, [0.05, 0.5])
        found["cosine_mean"] = float(cosines_N.mean(dtype=np.float64))
        found |= {"cosine_p5": float(p5), "cosine_p50": float(p50), "cosine_min": float(cosines_N.min())}
    return found


def shared_by_depth(first_QK: np.ndarray, second_QK: np.ndarray) -> np.ndarray:
    """How many items the first d hits of two answers share, for d = 1 to K: int64 [Q, K].

    The items of an answer differ, but for -1, which is none. Works in chunks of queries.
    """
    num_hits = first_QK.shape[1]
    shared_QK = np.empty(first_QK.shape, dtype=np.int64)
    for start in range(0, len(first_QK), _CHUNK):
        rows = slice(start, start + _CHUNK)
        both_Q2K = np.concatenate([first_QK[rows], second_QK[rows]], axis=1)
        order_Q2K = np.argsort(both_Q2K, axis=1, kind="stable")
        sorted_Q2K = np.take_along_axis(both_Q2K, order_Q2K, axis=1)
        # an item of both is beside itself
        query, place = np.nonzero((sorted_Q2K[:, :-1] == sorted_Q2K[:, 1:]) & (sorted_Q2K[:, 1:] >= 0))
        # the first answer comes first, as the sort is stable
        depth = np.maximum(order_Q2K[query, place], order_Q2K[query, place + 1] - num_hits)
        counts = np.bincount(query * num_hits + depth, minlength=len(both_Q2K) * num_hits)
        shared_QK[rows] = counts.reshape(len(both_Q2K), num_hits).cumsum(axis=1)
    return shared_QK


def rank_biased_overlaps(shared_QK: np.ndarray, persistence: float = PERSISTENCE) -> np.ndarray:
    """`query.hits.compare.rank_biased_overlap` of many pairs of rankings that are equally long: float64 [Q].

    Args:
        shared_QK: How many items their first d hits share.
        persistence: How far down it looks.
    """
    depths_K = np.arange(1, shared_QK.shape[1] + 1)
    agreement_QK = shared_QK / depths_K
    summed_Q = agreement_QK @ persistence**depths_K
    return (1 - persistence) / persistence * summed_Q + agreement_QK[:, -1] * persistence ** depths_K[-1]
