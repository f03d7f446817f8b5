"""Figures of a set of image and text vectors that decide how hard an index over them is, for text queries."""

import faiss
import numpy as np

from tests.drills.index.measure import K

RECALLS = (0.90, 0.95, 0.98, 0.99)
NUM_LISTS = 1024
SHARES = (1, 8, 32, 96)
"""Numbers of leading eigenvalues whose share of the variance is given."""


def geometry(images_NE: np.ndarray, texts_QE: np.ndarray, num_lists: int = NUM_LISTS) -> dict[str, object]:
    """Norms of the means and the gap, spectra, spread of the lists, scores of the 10th hit, and the nprobe needed."""
    image_mean, text_mean = images_NE.mean(axis=0), texts_QE.mean(axis=0)
    norms = float(np.linalg.norm(image_mean)), float(np.linalg.norm(text_mean))
    lists = Lists(images_NE, num_lists)
    scores_QK, truth_QK = faiss.knn(texts_QE, images_NE, K, metric=faiss.METRIC_INNER_PRODUCT)
    sample = images_NE[:: max(1, len(images_NE) // 20_000)]
    means_Q = texts_QE @ sample.mean(axis=0)
    deviations_Q = np.sqrt(np.einsum("qe,ef,qf->q", texts_QE, np.cov(sample.T), texts_QE))
    tenth_Q = (scores_QK[:, K - 1] - means_Q) / deviations_Q
    return {
        "norm of the mean image": norms[0],
        "norm of the mean text": norms[1],
        "cosine of the means": float(image_mean @ text_mean) / (norms[0] * norms[1]),
        "distance of the means": float(np.linalg.norm(image_mean - text_mean)),
        "share of image variance": _shares(images_NE),
        "share of text variance": _shares(texts_QE),
        "variance inside lists": lists.variance_inside(),
        "share of 8 directions inside a list": lists.share_of(8),
        "10th score in deviations, 5 / 50 / 95 %": [float(value) for value in np.percentile(tenth_Q, [5, 50, 95])],
        "10th score, 5 / 50 / 95 %": [float(value) for value in np.percentile(scores_QK[:, K - 1], [5, 50, 95])],
        "nprobe": lists.nprobe_for(texts_QE, truth_QK),
    }


def _shares(vectors_NE: np.ndarray) -> dict[str, float]:
    values = np.linalg.eigvalsh(np.cov(vectors_NE.T))[::-1]
    return {str(number): float(values[:number].sum() / values.sum()) for number in SHARES}


class Lists:
    """The lists that FAISS makes for inner products: spherical k-means, and each vector in the list of its largest."""

    def __init__(self, images_NE: np.ndarray, num_lists: int) -> None:
        self.images_NE = images_NE
        kmeans = faiss.Kmeans(
            images_NE.shape[1], num_lists, niter=10, spherical=True, seed=1234, min_points_per_centroid=1
        )
        kmeans.train(images_NE)
        self.centroids_LE = kmeans.centroids
        self.list_N = faiss.knn(images_NE, self.centroids_LE, 1, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 0]

    def nprobe_for(self, queries_QE: np.ndarray, truth_QK: np.ndarray) -> dict[str, float]:
        """The nprobe at which exact scans of the lists find each share of the true K."""
        order_QL = np.argsort(-(queries_QE @ self.centroids_LE.T), axis=1)
        rank_QL = np.empty_like(order_QL)
        np.put_along_axis(rank_QL, order_QL, np.arange(order_QL.shape[1])[None], axis=1)
        ranks = np.take_along_axis(rank_QL, self.list_N[truth_QK], axis=1) + 1
        return {f"{recall:.2f}": float(np.quantile(ranks, recall)) for recall in RECALLS}

    def variance_inside(self) -> float:
        """Share of the variance that is inside the lists."""
        means_LE, _ = self._means()
        inside = ((self.images_NE - means_LE[self.list_N]) ** 2).sum()
        return float(inside / ((self.images_NE - self.images_NE.mean(axis=0)) ** 2).sum())

    def share_of(self, rank: int) -> float:
        """Share of the leading directions in the variance of a list, over the 64 largest lists."""
        _, counts_L = self._means()
        shares = []
        for number in np.argsort(-counts_L)[:64]:
            values = np.linalg.eigvalsh(np.cov(self.images_NE[self.list_N == number].T))[::-1]
            shares.append(values[:rank].sum() / values.sum())
        return float(np.mean(shares))

    def _means(self) -> tuple[np.ndarray, np.ndarray]:
        counts_L = np.bincount(self.list_N, minlength=len(self.centroids_LE))
        sums_LE = np.zeros_like(self.centroids_LE)
        order_N = np.argsort(self.list_N, kind="stable")
        filled = np.flatnonzero(counts_L)
        starts = np.concatenate([[0], np.cumsum(counts_L)[:-1]])[filled]
        sums_LE[filled] = np.add.reduceat(self.images_NE[order_N], starts, axis=0)
        return sums_LE / np.maximum(counts_L, 1)[:, None], counts_L
