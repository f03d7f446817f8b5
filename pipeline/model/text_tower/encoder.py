"""Text vectors from a plain tower."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ClipsieveError
from pipeline.machine import num_cores
from pipeline.model.text_tower.one_thread import blas_on_one_thread
from pipeline.model.text_tower.plain_tower import PlainTower
from pipeline.model.tokenizer import Tokenizer

_AT_ONCE = 32
_WORTH_A_THREAD = 8
"""Texts."""


@dataclass(frozen=True, slots=True)
class PlainTextEncoder:
    """Embeds texts as an `Encoder` does, without torch. Several threads can use one."""

    tower: PlainTower
    tokenize: Tokenizer
    """Turns texts into token ids."""

    text_space: str
    """Text space of its vectors."""

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Embed texts: float32 [len(texts), E], unit length.

        Args:
            texts: Texts; those that are longer than the model reads are cut.
            batch_size: Texts in memory at once.

        Raises:
            ClipsieveError: If a vector is not finite.
        """
        size = min(_AT_ONCE, batch_size, max(_WORTH_A_THREAD, -(-len(texts) // num_cores())))
        # texts of like length together, because the tower reads all of a batch to the end of the longest
        order = np.argsort([-len(text) for text in texts], kind="stable")
        batches = [[texts[place] for place in order[start : start + size]] for start in range(0, len(texts), size)]
        with blas_on_one_thread():
            if len(batches) <= 1:
                parts = [self._embed(batch) for batch in batches]
            else:
                with ThreadPoolExecutor(num_cores()) as pool:
                    parts = list(pool.map(self._embed, batches))
        vectors = np.empty((len(texts), self.tower.shape.embed_dim), np.float32)
        vectors[order] = np.concatenate([vectors[:0], *parts])
        return vectors

    def _embed(self, texts: list[str]) -> np.ndarray:
        features_BE = self.tower(self.tokenize(texts))
        vectors_BE = features_BE / np.maximum(np.linalg.norm(features_BE, axis=1, keepdims=True), np.float32(1e-12))
        if not np.isfinite(vectors_BE).all():
            raise ClipsieveError(
                f"the embedding of a text is not finite (text space {self.text_space[:16]}); use other weights"
            )
        return vectors_BE
