"""Read the segments of an index through mapped files: opening costs nothing, and only pages that are used are read.

Shapes: N rows over all segments, n some of them, E embedding width.
"""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from indexer.segments.record import Segment
from pipeline.errors import StoreError

CHUNK_BYTES = 32 << 20
"""Memory of a chunk of vectors, in float32."""


class MappedSegments:
    """The rows of an index. Safe to read from several threads."""

    def __init__(self, folder: Path, segments: Sequence[Segment]) -> None:
        """Map the files.

        Raises:
            StoreError: If a file is missing or has another size than its segment.
        """
        self.segments = tuple(segments)
        self._starts = np.cumsum([0, *(segment.num_rows for segment in segments)])
        self.num_rows = int(self._starts[-1])
        self.dim = segments[0].dim if segments else 0
        self._paths = [segment.paths(folder) for segment in segments]
        self._vectors = [
            _map(paths[0], (segment.num_rows, segment.dim), segment.dtype)
            for paths, segment in zip(self._paths, segments, strict=True)
        ]
        self._ids = [
            _map(paths[1], (segment.num_rows,), "int64") for paths, segment in zip(self._paths, segments, strict=True)
        ]
        self._rows = [_Rows(paths[2], segment) for paths, segment in zip(self._paths, segments, strict=True)]

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """Vectors (float32 [n, E]) at ascending positions (int64 [n])."""
        return self._gather(self._vectors, positions).astype(np.float32, copy=False)

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Ids (int64, the shape of `positions`). A position of -1 has the id -1."""
        flat = positions.ravel()
        found = np.full(len(flat), -1, np.int64)
        order = np.argsort(flat, kind="stable")
        order = order[np.searchsorted(flat[order], 0) :]
        found[order] = self._gather(self._ids, flat[order])
        return found.reshape(positions.shape)

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """Positions (int64, ascending) of those of the ascending `ids` (int64) that the index has."""
        found = []
        for start, own in zip(self._starts, self._ids, strict=False):
            places = np.searchsorted(own, ids)
            places = places[(places < len(own)) & (own[np.minimum(places, len(own) - 1)] == ids)] if len(own) else []
            found.append(start + np.asarray(places, np.int64))
        return np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)

    def rows(self, positions: np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
        """The metadata of some rows, in the order of `positions` (int64 [n], none of them -1)."""
        order = np.argsort(positions, kind="stable")
        bounds = np.searchsorted(positions[order], self._starts)
        batches = [
            batch
            for rows, start, low, high in zip(self._rows, self._starts, bounds, bounds[1:], strict=False)
            for batch in rows.take(positions[order[low:high]] - start)
        ]
        table = pa.Table.from_batches(batches, self.schema)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return (table.select(columns) if columns is not None else table).take(back)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the metadata."""
        return self._rows[0].schema

    def chunks(self, rows: int | None = None, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all vectors from a position on, as (position of the first, float32 [n, E]), `rows` at most at once."""
        rows = rows or max(1, CHUNK_BYTES // (4 * max(1, self.dim)))
        for first, segment, (path, _, _) in zip(self._starts, self.segments, self._paths, strict=False):
            row_bytes = segment.dim * np.dtype(segment.dtype).itemsize
            with path.open("rb") as file:  # not mapped: pages of a mapped file would count as memory of this process
                for row in range(max(0, start - int(first)), segment.num_rows, rows):
                    file.seek(row * row_bytes)
                    count = min(rows, segment.num_rows - row) * segment.dim
                    found = np.fromfile(file, segment.dtype, count).reshape(-1, segment.dim)
                    yield int(first) + row, found.astype(np.float32, copy=False)

    def _gather(self, arrays: Sequence[np.ndarray], positions: np.ndarray) -> np.ndarray:
        if len(arrays) == 1:
            return arrays[0][positions]
        bounds = np.searchsorted(positions, self._starts)
        found = [
            array[positions[low:high] - start]
            for array, start, low, high in zip(arrays, self._starts, bounds, bounds[1:], strict=False)
        ]
        return np.concatenate(found) if found else np.empty((len(positions), self.dim), np.float32)


class _Rows:
    """The record batches of one segment, read from its mapped file when they are needed."""

    def __init__(self, path: Path, segment: Segment) -> None:
        try:
            self._buffer = pa.memory_map(str(path)).read_buffer()
            self.schema = pa.ipc.read_schema(self._buffer)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"cannot read {path}; rebuild the index with `clipsieve index --rebuild`") from error
        self._offsets, self._starts = segment.offsets, segment.starts

    def take(self, rows: np.ndarray) -> Iterator[pa.RecordBatch]:
        """Some rows, which ascend, in as many batches as hold them."""
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(numbers):
            message = pa.ipc.read_message(self._buffer[self._offsets[number] :])
            batch = pa.ipc.read_record_batch(message, self.schema)
            yield batch.take(pa.array(rows[numbers == number] - self._starts[number]))


def _map(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        with path.open("rb") as file:
            found = path.stat().st_size
            if found != expected:
                raise StoreError(
                    f"{path} has {found} bytes, {expected} were expected; rebuild the index with "
                    "`clipsieve index --rebuild`"
                )
            if not expected:
                return np.empty(shape, dtype)
            mapped = mmap.mmap(file.fileno(), expected, access=mmap.ACCESS_READ)
    except OSError as error:
        raise StoreError(
            f"cannot read {path}: {error.strerror}; rebuild the index with `clipsieve index --rebuild`"
        ) from error
    mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, dtype).reshape(shape)
