"""Read and decode images in processes that may die of one."""

import math
from typing import Any

import numpy as np

from pipeline.machine import num_cores
from pipeline.model.spec import Preprocess
from pipeline.source.entry import Status
from query.service.images.messages import MEDIA_TYPES
from query.service.images.worker import DecodeFailedError, Pool
from query.service.problems import ProblemError
from query.service.settings import ServeSettings

LIMIT_S = 10.0
"""Seconds that an image may take to be read and decoded."""
MOST_PROCESSES = 4


class Decoders:
    """A few processes that decode. One that takes too long or dies is replaced, and only its image fails.

    Those for images that clients send are others than those for the images of stores: neither waits for the other.
    """

    def __init__(self, settings: ServeSettings, limit_s: float = LIMIT_S) -> None:
        """Start none yet."""
        count = min(MOST_PROCESSES, num_cores())
        self._max_pixels, self._limit_s = settings.max_pixels, limit_s
        self.sent, self.stored = Pool(count), Pool(count)

    async def pixels(self, image: bytes, preprocess: Preprocess) -> np.ndarray:
        """Decode an image that a client sent, as `embed` does: uint8 [H, W, 3].

        Raises:
            ProblemError: 422 if it cannot be decoded; 413 if it has too many pixels; 503 if no process starts.
        """
        task = {"do": "pixels", "preprocess": preprocess.model_dump(mode="json"), "max_pixels": self._max_pixels}
        try:
            header, data = await self.sent.ask(task, self._limit_s, image)
        except DecodeFailedError as error:
            raise ProblemError(422, f"the image cannot be decoded: {error}; send another file") from error
        if header.get("status") == Status.TOO_LARGE:
            raise ProblemError(413, f"the image is too large: {header.get('reason')}; send a smaller one")
        if header.get("status") != Status.OK:
            raise ProblemError(422, f"the image cannot be decoded: {header.get('reason')}; send another file")
        shape = (preprocess.height, preprocess.width, 3)
        if len(data) != math.prod(shape):
            raise ProblemError(422, "the image cannot be decoded: the process that decoded it gave no image")
        return np.frombuffer(bytearray(data), np.uint8).reshape(shape)  # torch wants memory that can be written

    async def thumbnail(self, uri: str) -> bytes | str:
        """A small WebP of an image of a store, or why there is none.

        Raises:
            ProblemError: 503 if no process starts.
        """
        found = await self._of_store({"do": "thumbnail", "uri": uri})
        return found if isinstance(found, str) else found[0]

    async def original(self, uri: str) -> tuple[bytes, str] | str:
        """An image of a store as browsers can show it, and its media type, or why it cannot be shown.

        Raises:
            ProblemError: 503 if no process starts.
        """
        return await self._of_store({"do": "original", "uri": uri})

    async def close(self) -> None:
        """End the processes."""
        await self.sent.close()
        await self.stored.close()

    async def _of_store(self, task: dict[str, Any]) -> tuple[bytes, str] | str:
        try:
            header, data = await self.stored.ask(task, self._limit_s)
        except DecodeFailedError as error:
            return str(error)
        media_type = header.get("media_type")
        # an image may have taken the process over, and a page that it sent would be one of ours
        return (data, media_type) if media_type in MEDIA_TYPES.values() else str(header.get("reason"))
