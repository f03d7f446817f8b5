"""Processes that read and decode images, and may die of one."""

import numpy as np

from pipeline.model.spec import Preprocess
from query.service.settings import ServeSettings


class Decoders:
    """A few processes that decode. One that takes too long or dies is replaced, and only its image fails."""

    def __init__(self, settings: ServeSettings) -> None:
        """Start none yet."""
        self._settings = settings

    async def pixels(self, image: bytes, preprocess: Preprocess) -> np.ndarray:
        """Decode an image that a client sent, as `embed` does: uint8 [H, W, 3].

        Raises:
            ProblemError: 422 if it cannot be decoded; 413 if it has too many pixels.
        """
        raise NotImplementedError

    async def thumbnail(self, uri: str) -> bytes | str:
        """A small WebP of an image of a store, or why there is none."""
        raise NotImplementedError

    async def original(self, uri: str) -> tuple[bytes, str] | str:
        """An image of a store as browsers can show it, and its media type, or why it cannot be shown."""
        raise NotImplementedError

    async def close(self) -> None:
        """End the processes."""
