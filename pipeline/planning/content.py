"""Find changes that sizes and times do not show, by comparing the bytes of images with the hashes in their rows."""

import hashlib
from functools import lru_cache

from pipeline.planning.changes import Planned
from pipeline.source.entry import ImageEntry, Source, Status
from pipeline.source.left_out import ReadNotes
from pipeline.source.reading import read_file, read_image
from pipeline.store.parts import read_part
from pipeline.store.records import Shard
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
        hashes = self._hashes(planned.shard)
        try:
            return planned.number in hashes and hashes[planned.number] != _hash(read_image(entry.uri))
        except OSError:  # embedding it again would not help
            return False

    def is_file_changed(self, planned: Planned, source: Source) -> bool:
        """Whether any image in a file's shard changed, or the number of images.

        Images of tars are told apart by key. Their positions are not those of a store that was made before links in
        tars were read.
        """
        shard = planned.shard
        if shard.ordinal not in self._view.committed:
            return False
        hashes, marker = self._hashes(shard), self._view.committed[shard.ordinal]
        notes = ReadNotes()
        entries = read_file(shard.file, source, shard.start, shard.start + (shard.num_images or 0), notes)
        count, missing = 0, set(hashes)
        for count, entry in enumerate(entries, start=1):
            row = entry.key if shard.is_tar else shard.first_id + count - 1
            missing.discard(row)
            # rows without bytes point to other files
            if row in hashes and entry.data and hashes[row] != _hash(entry.data):
                return True
        num_rows = marker.num_images + marker.num_removed
        return bool(missing) or num_rows not in (count, count - notes.num_links)

    def _hashes_of(self, shard: Shard) -> dict[int | str, str | None]:
        """Hashes by row id, or by key in a tar; None for unreadable images. Rows that no decoder survived have none."""
        row = "key" if shard.is_tar else "id"
        table = read_part(self._view.store.part_of(self._view.committed[shard.ordinal]), [row, "sha256", "status"])
        rows = zip(*(table[name].to_pylist() for name in (row, "sha256", "status")), strict=True)
        return {row: digest for row, digest, status in rows if digest or status == Status.UNREADABLE}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
