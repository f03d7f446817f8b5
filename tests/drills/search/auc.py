"""Area under the ROC curve, and its difference between two measures with a bootstrap interval over whole images.

Shapes: Q queries, B bootstrap samples.
"""

import numpy as np

NUM_SAMPLES = 2000


def auc(values_Q: np.ndarray, is_right_Q: np.ndarray, weights_BQ: np.ndarray | None = None) -> np.ndarray:
    """Probability that a query with a right answer has the larger value; ties count half.

    Args:
        values_Q: The measure.
        is_right_Q: Which queries have a right answer.
        weights_BQ: How often each query is in each bootstrap sample.

    Returns:
        float64 [B], or [1] without weights.
    """
    weights_BQ = np.ones((1, len(values_Q))) if weights_BQ is None else weights_BQ
    _, group_Q = np.unique(values_Q, return_inverse=True)
    order = np.argsort(group_Q, kind="stable")
    starts = np.flatnonzero(np.diff(group_Q[order], prepend=-1))
    right_BG = np.add.reduceat((weights_BQ * is_right_Q)[:, order], starts, axis=1)
    wrong_BG = np.add.reduceat((weights_BQ * ~is_right_Q)[:, order], starts, axis=1)
    below_BG = np.cumsum(wrong_BG, axis=1) - wrong_BG / 2
    return (right_BG * below_BG).sum(axis=1) / (right_BG.sum(axis=1) * wrong_BG.sum(axis=1))


def paired_auc(
    values_Q: np.ndarray, baseline_Q: np.ndarray, is_right_Q: np.ndarray, clusters_Q: np.ndarray, seed: int = 0
) -> dict[str, float | list[float]]:
    """The AUC of a measure, and its difference to a baseline on the same queries, with a 95% interval.

    Args:
        values_Q: The measure.
        baseline_Q: The baseline.
        is_right_Q: Which queries have a right answer.
        clusters_Q: The image of each query. Images are resampled as a whole.
        seed: Seed for resampling.
    """
    _, cluster_Q = np.unique(clusters_Q, return_inverse=True)
    num_clusters, rng = cluster_Q.max() + 1, np.random.default_rng(seed)
    differences = []
    for _ in range(NUM_SAMPLES // 100):
        draws = rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=100)
        weights_BQ = draws[:, cluster_Q].astype(np.float64)
        differences.append(auc(values_Q, is_right_Q, weights_BQ) - auc(baseline_Q, is_right_Q, weights_BQ))
    own, other = float(auc(values_Q, is_right_Q)[0]), float(auc(baseline_Q, is_right_Q)[0])
    interval = np.quantile(np.concatenate(differences), [0.025, 0.975])
    return {"auc": own, "difference": own - other, "interval": interval.tolist()}
