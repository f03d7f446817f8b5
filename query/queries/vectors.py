"""From requests to unit vectors: the towers of a store's model, loaded when they are needed first.

Shapes: Q queries, E embedding width.
"""

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError
from pipeline.model.spec import ClaimedSpec, DeviceChoice, EncoderSpec
from query.queries.request import Request
from query.queries.terms import parse_terms, unit_rows, vectors_of
from query.text import TextEncoder, text_encoder

if TYPE_CHECKING:
    from pipeline.model.encode import Encoder


class QueryEncoder:
    """The towers of one model. Safe to use from several threads."""

    def __init__(self, spec: EncoderSpec | ClaimedSpec, device: DeviceChoice = "auto") -> None:
        """Refer to a model; nothing is loaded yet."""
        self.spec, self._device, self._lock = spec, device, Lock()
        self._text: TextEncoder | None = None
        self._image: Encoder | None = None

    def vectors(self, requests: Sequence[Request], liked: Sequence[np.ndarray]) -> tuple[np.ndarray, list[str]]:
        """The vectors of requests, and warnings about their texts.

        Args:
            requests: What is asked; all with the same templates.
            liked: For each, the vectors [n, E] of the images of the store that it names.

        Returns:
            Unit float32 [Q, E], and warnings.

        Raises:
            InputError: If a text is empty, a sum cancels out, a vector has the wrong width, an image cannot be
                decoded, or the model cannot be loaded.
            StoreError: If the store's model is no longer the one that made it.
        """
        asked = [request.text for request in requests if request.text is not None]
        texts_QE, warnings = self.texts(asked, requests[0].templates) if asked else ([], [])
        texts, sums = iter(texts_QE), []
        for request, liked_NE in zip(requests, liked, strict=True):
            parts = [] if request.text is None else [next(texts)]
            parts += [self.image(image) for image in request.images]
            if len(liked_NE):
                parts.append(unit_rows(liked_NE.mean(axis=0, keepdims=True), "the images of the store cancel out")[0])
            if request.vector is not None:
                parts.append(self._given(request.vector))
            sums.append(np.sum(parts, axis=0, dtype=np.float32))
        return unit_rows(np.stack(sums), "the parts of the query cancel out"), warnings

    def texts(self, queries: Sequence[str], templates: Sequence[str] = ()) -> tuple[np.ndarray, list[str]]:
        """The vectors of texts and weighted sums, unit float32 [Q, E], and warnings."""
        sums = [parse_terms(query) for query in queries]
        encoder = self._text_encoder()
        vectors_QE = vectors_of(sums, templates, encoder.encode_texts)
        texts = [term.text for terms in sums for term in terms]
        return vectors_QE, encoder.tokenize.count_cut(texts, "query", "queries")[1]

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """The vectors of plain texts, unit float32 [Q, E]."""
        return self._text_encoder().encode_texts(texts)

    def image(self, image: object) -> np.ndarray:
        """The vector of an image, unit float32 [E]."""
        from query.image import encode_image, image_encoder

        with self._lock:
            self._image = encoder = self._image or image_encoder(self.spec, self._device)
        return encode_image(encoder, image)

    def close(self) -> None:
        """Free the towers. They are loaded again if they are needed."""
        self._text = self._image = None

    def _text_encoder(self) -> TextEncoder:
        with self._lock:
            self._text = encoder = self._text or text_encoder(self.spec, self._device)
        return encoder

    def _given(self, vector: np.ndarray) -> np.ndarray:
        found, dim = np.asarray(vector, np.float32), self.spec.embedding_dim
        if found.shape != (dim,):
            raise InputError(f"the vector has the shape {found.shape}, the embeddings of the store have ({dim},)")
        fault = "the vector is zero or not finite"
        if not np.isfinite(found).all():
            raise InputError(fault)
        return unit_rows(found[None], fault)[0]
