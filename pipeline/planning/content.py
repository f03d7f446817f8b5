"""Find changes that sizes and times do not show, by comparing the bytes of images with the hashes in their rows."""

import hashlib
from functools import lru_cache

from pipeline.planning.changes import Planned
from pipeline.source.entry import ImageEntry, Source, Status
from pipeline.source.reading import read_file, read_image
from pipeline.store.parts import read_part
from pipeline.store.view import StoreView


class ContentCheck:
    """Compares the bytes of images with the hashes in their rows. Reads every embedded image."""

    def __init__(self, view: StoreView) -> None:
        self._view = view
        self._hashes = lru_cache(8)(self._hashes_of)  # with several plans, the walk alternates between a few shards

    def is_image_changed(self, planned: Planned, entry: ImageEntry) -> bool:
        """Whether the image differs from the embedded one, or can be read now but could not be then."""
        if planned.shard.ordinal not in self._view.committed:
            return False
        hashes = self._hashes(planned.shard.ordinal)
        try:
            return planned.number in hashes and hashes[planned.number] != _hash(read_image(entry.uri))
        except OSError:  # embedding it again would not help
            return False

    def is_file_changed(self, planned: Planned, source: Source) -> bool:
        """Whether any image in a file's shard changed, or the number of images."""
        shard = planned.shard
        if shard.ordinal not in self._view.committed:
            return False
        hashes, marker = self._hashes(shard.ordinal), self._view.committed[shard.ordinal]
        entries = read_file(shard.file, source, shard.start, shard.start + (shard.num_images or 0))
        count = 0
        for count, entry in enumerate(entries, start=1):
            number = shard.first_id + count - 1
            # rows without bytes point to other files
            if number in hashes and entry.data and hashes[number] != _hash(entry.data):
                return True
        return count != marker.num_images + marker.num_removed

    def _hashes_of(self, ordinal: int) -> dict[int, str | None]:
        """Hashes by row id; None for unreadable images. Leaves out rows that crashed or hung a decoder."""
        table = read_part(self._view.store.part_of(self._view.committed[ordinal]), ["id", "sha256", "status"])
        rows = zip(*(table[name].to_pylist() for name in ("id", "sha256", "status")), strict=True)
        return {number: digest for number, digest, status in rows if digest or status == Status.UNREADABLE}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
