"""Thumbnails of the images of a store, the most recent ones in memory."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from query.service.images.decoders import Decoders

FAILURE_KEPT_S = 30.0
"""Seconds until an image that could not be shown is tried again."""
_OVERHEAD_BYTES = 500

Place = tuple[str, str, int]
"""Store, version and id."""


@dataclass(frozen=True, slots=True)
class _Kept:
    thumb: bytes | str
    until_s: float

    @property
    def num_bytes(self) -> int:
        return len(self.thumb) + _OVERHEAD_BYTES


class Thumbs:
    """Thumbnails by store, version and id. Who asks for one that is being made waits for it."""

    def __init__(self, decoders: Decoders, most_bytes: int) -> None:
        """Keep at most so many bytes."""
        self._decoders, self._most_bytes = decoders, most_bytes
        self._kept: OrderedDict[Place, _Kept] = OrderedDict()
        self._making: dict[Place, asyncio.Task[bytes | str]] = {}
        self.num_bytes = 0
        """Bytes that are kept."""

    async def get(self, place: Place, uri: str) -> bytes | str:
        """The thumbnail of an image (WebP), or why there is none.

        Raises:
            ProblemError: 503 if no decode process starts.
        """
        kept = self._kept.get(place)
        if kept and time.monotonic() < kept.until_s:
            self._kept.move_to_end(place)
            return kept.thumb
        if place not in self._making:
            task = self._making[place] = asyncio.create_task(self._make(place, uri))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # all who waited may have gone
        return await asyncio.shield(self._making[place])

    async def _make(self, place: Place, uri: str) -> bytes | str:
        try:
            thumb = await self._decoders.thumbnail(uri)
        finally:
            del self._making[place]
        self._forget(place)
        self._kept[place] = kept = _Kept(
            thumb, time.monotonic() + FAILURE_KEPT_S if isinstance(thumb, str) else float("inf")
        )
        self.num_bytes += kept.num_bytes
        while self.num_bytes > self._most_bytes:
            self._forget(next(iter(self._kept)))
        return thumb

    def _forget(self, place: Place) -> None:
        kept = self._kept.pop(place, None)
        self.num_bytes -= kept.num_bytes if kept else 0
