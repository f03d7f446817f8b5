"""A generator of image and text vectors of any number and width, with the geometry of the shared real vectors.

It is fitted to the shared vectors each time, from their folder; nothing of them is kept here. Both kinds are smoothed
resamples. A generated vector has a parent, a real one. It keeps the share `KEPT` of what sets its parent apart from the
mean of the parent's k-means cell, by variance; the rest is normal noise with the covariance of that cell. So means,
spectra and the gap between the two kinds stay, the lists of an index have the shapes of real ones, and no vector is a
copy. Parents take turns in random order: ten times as many images as real ones are ten different ones of each parent.

More dimensions than the real ones continue the spectrum: its eigenvalues are extended as a power law, each vector gets
independent noise of these variances, and a random rotation mixes all dimensions. All vectors have unit length.

At the real size (`synthetic.py --check`, 4,000 texts), the nprobe of 1,024 lists for recall@10 of .90 / .95 / .98 / .99
was 18 / 39 / 84 / 135 with seed 0, where the real vectors need 18 / 37 / 84 / 145. With seed 1, it was 1.06 / 1.06 /
1.09 / 1.06 times the real one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np

NUM_CELLS = 256
NUM_TEXT_CELLS = 128
KEPT = 0.85
KEPT_OF_TEXTS = 0.9
"""With less, the texts are easier than real ones: at 0.5, .99 needs a tenth fewer lists."""
SHRINKAGE = 0.2
"""Share of the pooled covariance in that of a cell, because a cell has few images for its many dimensions."""
CHUNK = 50_000
"""Images generated at a time. The bytes depend on it."""


@dataclass(frozen=True, slots=True)
class Parents:
    """Real vectors and their k-means cells. Shapes: N parents, C cells, E dimensions."""

    vectors_NE: np.ndarray
    cell_N: np.ndarray
    means_CE: np.ndarray
    roots_CEE: np.ndarray  # z @ root has the covariance of the cell

    @classmethod
    def of(cls, vectors_NE: np.ndarray, num_cells: int, seed: int) -> "Parents":
        """Find the cells and their covariances."""
        dim = vectors_NE.shape[1]
        kmeans = faiss.Kmeans(dim, num_cells, niter=10, seed=seed + 1, min_points_per_centroid=1)
        kmeans.train(vectors_NE)
        cell_N = kmeans.index.search(vectors_NE, 1)[1][:, 0]
        num_members_C = np.bincount(cell_N, minlength=num_cells)
        members = np.split(np.argsort(cell_N, kind="stable"), np.cumsum(num_members_C)[:-1])
        means_CE = np.stack([vectors_NE[rows].mean(axis=0) for rows in members])
        centred_NE = vectors_NE - means_CE[cell_N]
        pooled_EE = centred_NE.T @ centred_NE / len(vectors_NE)
        roots = []
        for rows in members:
            own_EE = centred_NE[rows].T @ centred_NE[rows] / len(rows)
            alike_EE = pooled_EE * (np.trace(own_EE) / np.trace(pooled_EE))
            values_E, directions_EE = np.linalg.eigh((1 - SHRINKAGE) * own_EE + SHRINKAGE * alike_EE)
            roots.append((np.sqrt(np.maximum(values_E, 0)) * directions_EE).T)
        return cls(vectors_NE, cell_N, means_CE, np.stack(roots).astype(np.float32))

    def children(self, parent_M: np.ndarray, kept: float, random: np.random.Generator) -> np.ndarray:
        """One vector for each parent named: float32 [M, E], not yet of unit length."""
        cell_M = self.cell_N[parent_M]
        noise_ME = random.standard_normal((len(parent_M), self.vectors_NE.shape[1]), dtype=np.float32)
        for cell in np.unique(cell_M):
            rows = np.flatnonzero(cell_M == cell)
            noise_ME[rows] = noise_ME[rows] @ self.roots_CEE[cell]
        means_ME = self.means_CE[cell_M]
        away_ME = self.vectors_NE[parent_M] - means_ME
        return means_ME + np.float32(kept**0.5) * away_ME + np.float32((1 - kept) ** 0.5) * noise_ME


class Generator:
    """Draws images, chunk by chunk, and texts. The same arguments give the same vectors."""

    def __init__(
        self, images_NE: np.ndarray, texts_QE: np.ndarray, *, num_images: int, dim: int | None = None, seed: int = 0
    ) -> None:
        """Prepare `num_images` images of `dim` dimensions from real vectors."""
        self.num_images, self.seed = num_images, seed
        self.dim = dim or images_NE.shape[1]
        self._images = Parents.of(images_NE, NUM_CELLS, seed)
        self._texts = Parents.of(texts_QE, NUM_TEXT_CELLS, seed)
        self._wider = _Wider(images_NE, self.dim, seed)
        random = np.random.default_rng([seed, 0])
        self._image_order, self._text_order = random.permutation(len(images_NE)), random.permutation(len(texts_QE))

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield all images, float16 [n, E], n = `CHUNK` except at the end."""
        for number, first in enumerate(range(0, self.num_images, CHUNK)):
            random = np.random.default_rng([self.seed, 1, number])
            rows = np.arange(first, min(first + CHUNK, self.num_images)) % len(self._image_order)
            children_NE = self._images.children(self._image_order[rows], KEPT, random)
            yield self._wider.of(children_NE, random).astype(np.float16)

    def texts(self, num_texts: int) -> np.ndarray:
        """Text vectors, float16 [Q, E]."""
        random = np.random.default_rng([self.seed, 2])
        rows = np.arange(num_texts) % len(self._text_order)
        children_QE = self._texts.children(self._text_order[rows], KEPT_OF_TEXTS, random)
        return self._wider.of(children_QE, random).astype(np.float16)


class _Wider:
    """Adds the dimensions that the real vectors lack, mixes all dimensions, and brings vectors to unit length."""

    def __init__(self, images_NE: np.ndarray, dim: int, seed: int) -> None:
        real_dim = images_NE.shape[1]
        if dim < real_dim:
            raise SystemExit(f"the vectors have {real_dim} dimensions or more; {dim} were asked for")
        values_E = np.maximum(np.linalg.eigvalsh(np.cov(images_NE[:20_000].T))[::-1], 1e-9)
        tail = np.arange(real_dim // 4, real_dim - real_dim // 8) + 1  # the last ones are not part of the law
        power, level = np.polyfit(np.log(tail), np.log(values_E[tail - 1]), 1)
        extra = np.arange(real_dim, dim) + 1
        self._deviations = np.exp((level + power * np.log(extra)) / 2).astype(np.float32)
        self._rotation_EE = None
        if dim > real_dim:
            square = np.random.default_rng([seed, 3]).standard_normal((dim, dim))
            self._rotation_EE = np.linalg.qr(square)[0].astype(np.float32)

    def of(self, vectors_NE: np.ndarray, random: np.random.Generator) -> np.ndarray:
        vectors_NE = vectors_NE.astype(np.float32)
        if self._rotation_EE is not None:
            noise = random.standard_normal((len(vectors_NE), len(self._deviations)), dtype=np.float32)
            vectors_NE = np.hstack([vectors_NE, noise * self._deviations]) @ self._rotation_EE
        return vectors_NE / np.linalg.norm(vectors_NE, axis=1, keepdims=True)
