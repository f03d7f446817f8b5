"""From requests to unit vectors: the towers of a store's model, loaded when they are needed first.

Shapes: Q queries, E embedding width.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError
from pipeline.model.spec import ClaimedSpec, DeviceChoice, EncoderSpec, Preprocess
from query.queries.kept import KeptVectors
from query.queries.request import Request
from query.queries.terms import parse_terms, unit_rows, vectors_of
from query.text import TextEncoder, text_encoder

if TYPE_CHECKING:
    from pipeline.model.encode import Encoder


class QueryEncoder:
    """The towers of one model. Safe to use from several threads."""

    def __init__(
        self,
        spec: EncoderSpec | ClaimedSpec,
        device: DeviceChoice = "auto",
        kept_texts: int = 1_024,
        calibration: Path | None = None,
    ) -> None:
        """Refer to a model; nothing is loaded yet.

        Args:
            spec: The model.
            device: Where it runs.
            kept_texts: Of how many recent texts the vectors are kept.
            calibration: Where the store of the model keeps its calibration, for images.
        """
        self.spec, self._device, self._calibration = spec, device, calibration
        self._loading_text, self._loading_image = Lock(), Lock()
        self._text: TextEncoder | None = None
        self._image: Encoder | None = None
        self._kept = KeptVectors(kept_texts)

    def vectors(
        self, requests: Sequence[Request], liked: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[tuple[str, ...]]]:
        """The vectors of requests, and for each what its user should know about its text.

        Args:
            requests: What is asked.
            liked: For each, the vectors [n, E] of the images of the store that it names.

        Returns:
            Unit float32 [Q, E], and Q times warnings.

        Raises:
            InputError: If a text is empty, a sum cancels out, a vector has the wrong width, an image cannot be
                decoded, or the model cannot be loaded.
            StoreError: If the store's model is no longer the one that made it.
        """
        texts_E, sums, warnings = self._texts_of(requests), [], []
        for number, (request, liked_NE) in enumerate(zip(requests, liked, strict=True)):
            parts = [] if request.text is None else [texts_E[number]]
            parts += [self.image(image) for image in request.images]
            if len(liked_NE):
                parts.append(unit_rows(liked_NE.mean(axis=0, keepdims=True), "the images of the store cancel out")[0])
            if request.vector is not None:
                parts.append(self._given(request.vector))
            sums.append(np.sum(parts, axis=0, dtype=np.float32))
            warnings.append(() if request.text is None else tuple(self.warnings([request.text])))
        return unit_rows(np.stack(sums), "the parts of the query cancel out"), warnings

    def _texts_of(self, requests: Sequence[Request]) -> dict[int, np.ndarray]:
        """The vector of each request that has a text, by its number. Those with the same templates go together."""
        asked: dict[tuple[str, ...], list[int]] = {}
        for number, request in enumerate(requests):
            if request.text is not None:
                asked.setdefault(request.templates, []).append(number)
        found: dict[int, np.ndarray] = {}
        for templates, numbers in asked.items():
            found.update(
                zip(numbers, self.texts([requests[one].text or "" for one in numbers], templates), strict=True)
            )
        return found

    def texts(self, queries: Sequence[str], templates: Sequence[str] = ()) -> np.ndarray:
        """The vectors of texts and weighted sums, unit float32 [Q, E]."""
        return vectors_of([parse_terms(query) for query in queries], templates, self._kept_or_encoded)

    def warnings(self, queries: Sequence[str]) -> list[str]:
        """What users should know about texts and weighted sums: that the model reads only the beginning of some."""
        texts = [term.text for query in queries for term in parse_terms(query)]
        return self._text_encoder().tokenize.count_cut(texts, "query", "queries")[1]

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """The vectors of plain texts, unit float32 [Q, E]."""
        return self._text_encoder().encode_texts(texts)

    def image(self, image: object) -> np.ndarray:
        """The vector of an image, unit float32 [E]."""
        from query.image import encode_image

        return encode_image(self._image_encoder(), image)

    def pixels(self, pixels_HWC: np.ndarray) -> np.ndarray:
        """The vector (unit float32 [E]) of an image that was decoded as `preprocess` says, uint8 [H, W, 3]."""
        from query.image import encode_pixels

        return encode_pixels(self._image_encoder(), pixels_HWC)

    @property
    def preprocess(self) -> Preprocess:
        """How images are decoded for `pixels`. Loads the image tower if the store does not say it."""
        if isinstance(self.spec, EncoderSpec):
            return self.spec.preprocess
        return self._image_encoder().spec.preprocess

    @property
    def gmacs(self) -> float | None:
        """Multiply-adds for one image, in billions. None until the image tower is loaded, and of imported images."""
        return self._image.gmacs if self._image and isinstance(self.spec, EncoderSpec) else None

    def close(self) -> None:
        """Free the towers. They are loaded again if they are needed."""
        self._text = self._image = None

    def _kept_or_encoded(self, texts: list[str]) -> np.ndarray:
        found = self._kept.get(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            encoded = dict(zip(missing, self.encode_texts(missing), strict=True))
            self._kept.put(encoded)
            found |= encoded
        return np.stack([found[text] for text in texts])

    def _image_encoder(self) -> "Encoder":
        from query.image import image_encoder

        with self._loading_image:
            self._image = encoder = self._image or image_encoder(self.spec, self._device, self._calibration)
        return encoder

    def _text_encoder(self) -> TextEncoder:
        with self._loading_text:
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
