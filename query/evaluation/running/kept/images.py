"""Which images of a data set can be decoded, and what their files hold. Decodes each image once, and remembers.

Shapes: N images.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.durable.atomic import write_atomically
from pipeline.model.spec import Preprocess
from pipeline.monitor.progress import Tick
from pipeline.pixels.decode import decode_batch
from pipeline.source.entry import ImageEntry
from query.evaluation.running.kept.work import OnTick

_BATCH = 64
_COLUMNS = ("key", "state", "sha256", "error")


@dataclass(frozen=True, slots=True)
class Image:
    """What is known of an image."""

    key: str
    state: str | None
    """Changes if its file changes; None if only reading the file shows that."""
    sha256: str | None
    """Of the bytes of its file (hex); None if they could not be read."""
    error: str | None
    """Why it cannot be decoded; None if it can."""


def look_at(entries: Sequence[ImageEntry], preprocess: Preprocess, path: Path, on_tick: OnTick) -> list[Image]:
    """Look at every image [N]. Files that have not changed since the last look are not read again.

    Args:
        entries: The images.
        preprocess: For which they are decoded; what else was decoded is not taken from the last look.
        path: Where the looks are kept.
        on_tick: Called with the progress.

    Raises:
        SourceUnavailable: If the server of an image does not respond.
    """
    made_for = hashlib.sha256(preprocess.model_dump_json().encode()).hexdigest()
    states = [_state(entry) for entry in entries]
    known = {image.key: image for image in _read(path, made_for)}
    found = {
        entry.key: known[entry.key]
        for entry, state in zip(entries, states, strict=True)
        if state is not None and entry.key in known and known[entry.key].state == state
    }
    lacking = [place for place, entry in enumerate(entries) if entry.key not in found]
    num_failed = 0
    for start in range(0, len(lacking), _BATCH):
        places = lacking[start : start + _BATCH]
        results = decode_batch([entries[place] for place in places], preprocess).results
        for place, result in zip(places, results, strict=True):
            error = None if result.is_ok else f"{result.status}: {result.error}"
            found[result.key] = Image(result.key, states[place], result.sha256, error)
            num_failed += error is not None
        on_tick("images", Tick(start + len(places), len(lacking), num_failed, 0.0, is_of_images=False))
    images = [found[entry.key] for entry in entries]
    if lacking or len(known) != len(images):
        _write(path, images, made_for)
    return images


def hash_of(images: Sequence[Image]) -> str:
    """Hash of the bytes of images, in their order (hex)."""
    return hashlib.sha256("\n".join(image.sha256 or "" for image in images).encode()).hexdigest()


def _state(entry: ImageEntry) -> str | None:
    if entry.data is not None:
        return hashlib.sha256(entry.data).hexdigest()
    return f"{entry.uri} {entry.num_bytes} {entry.mtime_ns}" if entry.mtime_ns else None


def _read(path: Path, made_for: str) -> list[Image]:
    try:
        table = pq.read_table(path, partitioning=None)
        if (table.schema.metadata or {}).get(b"made_for") != made_for.encode():
            return []
        return [Image(*row) for row in zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True)]
    except (OSError, pa.ArrowException, KeyError):  # there is none, or it is damaged: images are looked at again
        return []


def _write(path: Path, images: Sequence[Image], made_for: str) -> None:
    columns = {name: pa.array([getattr(image, name) for image in images], pa.string()) for name in _COLUMNS}
    table = pa.table(columns).replace_schema_metadata({"made_for": made_for})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))
