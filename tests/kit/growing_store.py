"""A store that grows by steps, and whose answers tell which step they are of.

Each step adds a shard with one image per query, nearer to it than those of all steps before. So the hits of a query are
the images of the last step, of the one before, and so on: an answer that mixes two states cannot pass for one of them.
"""

import numpy as np

from indexer import build_index
from tests.kit.vector_store import add_vectors, vector_store

DIM = 64
NUM_QUERIES = 20
BASE_ROWS = 400
MOST_STEPS = 200
K = 5


class GrowingStore:
    """The store, and how far it has grown."""

    def __init__(self, root):
        base = np.random.default_rng(0).normal(size=(BASE_ROWS, DIM))
        base /= np.linalg.norm(base, axis=1, keepdims=True)
        self.asked = base[:NUM_QUERIES]
        self.store, self.step = vector_store(root, base.astype(np.float32), NUM_QUERIES), -1
        self.grow()

    @property
    def num_images(self):
        return BASE_ROWS + NUM_QUERIES * (self.step + 1)

    def grow(self):
        """Add a step, and bring the index up to date; every tenth step builds it from scratch."""
        self.step += 1
        asked, cosine = self.asked, 0.7 + 0.29 * self.step / MOST_STEPS
        noise = np.random.default_rng(1 + self.step).normal(size=asked.shape)
        noise -= (noise * asked).sum(axis=1, keepdims=True) * asked
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        add_vectors(self.store, (cosine * asked + np.sqrt(1 - cosine**2) * noise).astype(np.float32), NUM_QUERIES)
        build_index(self.store.root, recipe="Flat", proof=False, rebuild=self.step % 10 == 9)

    def step_of(self, query, keys, num_images):
        """The step that an answer to `like=query` (the id of a query is its number) is of; None if it is of none."""
        step = (num_images - BASE_ROWS) // NUM_QUERIES - 1
        first = BASE_ROWS // NUM_QUERIES  # the shard of the first step
        expected = [f"{first + step - back}/{query}.jpg" for back in range(min(step + 1, len(keys)))]
        return step if keys[: len(expected)] == expected else None
