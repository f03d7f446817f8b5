"""Measures of the top hit that were tried beside relevance, and were not taken.

Shapes: Q queries, N images, G built-in texts, E embedding width.
"""

import numpy as np

BATCH = 1_000


def others(queries_QE: np.ndarray, images_NE: np.ndarray, generic_GE: np.ndarray) -> dict[str, np.ndarray]:
    """Each measure (float [Q]) of the top hit. The images are a sample of the store, or all of them."""
    generic_NG = images_NE @ generic_GE.T
    hubness_N = np.sort(generic_NG, axis=1)[:, -10:].mean(axis=1)
    parts = [
        _of(queries_QE[start : start + BATCH] @ images_NE.T, generic_NG.mean(axis=1), hubness_N)
        for start in range(0, len(queries_QE), BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of(scores_QN: np.ndarray, generic_N: np.ndarray, hubness_N: np.ndarray) -> dict[str, np.ndarray]:
    sorted_QN = np.sort(scores_QN, axis=1)[:, ::-1]
    top, tenth = sorted_QN[:, 0], sorted_QN[:, 1:11].mean(axis=1)
    mean, deviation = scores_QN.mean(axis=1), scores_QN.std(axis=1)
    low, median, high = (np.percentile(sorted_QN, share, axis=1) for share in (25, 50, 75))
    tail = max(10, scores_QN.shape[1] // 50)
    threshold = sorted_QN[:, tail]
    excess = (sorted_QN[:, 1:tail] - threshold[:, None]).mean(axis=1)
    return {
        "score - mean": top - mean,
        "z-score": (top - mean) / deviation,
        "robust z-score": (top - median) / (high - low),
        "exponential tail": (top - threshold) / excess,
        "gap to the next ten": top - tenth,
        "also the image's mean over texts": (scores_QN - generic_N).max(axis=1) - mean,
        "CSLS": (2 * scores_QN - hubness_N).max(axis=1) - sorted_QN[:, :10].mean(axis=1),
    }
