"""Thumbnails of the images of a store, the most recent ones in memory."""

from query.service.images.decoders import Decoders


class Thumbs:
    """Thumbnails by store, version and id."""

    def __init__(self, decoders: Decoders, most_bytes: int) -> None:
        """Keep at most so many bytes."""
        self._decoders, self._most_bytes = decoders, most_bytes

    async def get(self, place: tuple[str, str, int], uri: str) -> bytes | str:
        """The thumbnail of an image (WebP), or why there is none."""
        return await self._decoders.thumbnail(uri)
