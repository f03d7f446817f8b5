"""The drift canary: embed a share of the images unpruned as well, to detect early how pruning changes them."""

import hashlib

import numpy as np

from pipeline.model.encode import Encoder
from pipeline.pixels.batch import DecodedBatch

_QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


class Canary:
    """Compares pruned and unpruned embeddings of a share of a shard's images, chosen by a hash of their keys."""

    def __init__(self, unpruned: Encoder, share: float) -> None:
        self._unpruned = unpruned
        self._share = share
        self._cosines: list[np.ndarray] = []

    def watch(self, batch: DecodedBatch, embeddings_BE: np.ndarray) -> None:
        """Embed the chosen images of a batch again, unpruned."""
        chosen = [slot for slot, image in enumerate(batch.results) if image.is_ok and self._chooses(image.key)]
        if chosen:
            unpruned = self._unpruned.encode(batch.pixels[chosen])
            self._cosines.append(np.einsum("be,be->b", unpruned, embeddings_BE[chosen]))

    def summary(self) -> dict[str, float] | None:
        """Image count and quantiles of the cosines since the last summary; None if no image was chosen."""
        if not self._cosines:
            return None
        cosines = np.concatenate(self._cosines)
        self._cosines = []
        quantiles = {name: round(float(np.quantile(cosines, q)), 6) for name, q in _QUANTILES.items()}
        return {"num_images": len(cosines), **quantiles}

    def _chooses(self, key: str) -> bool:
        number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
        return number < self._share * 2**64
