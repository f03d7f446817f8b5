"""Read the rows of an index through mapped files: opening costs nothing, and only pages that are used are read.

Shapes: N rows, n some of them, E embedding width.
"""

import itertools
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from indexer.rows.record import RowFiles
from pipeline.errors import StoreError

CHUNK_BYTES = 32 << 20
"""Memory of a chunk of vectors, in float32."""
KEPT_BATCHES = 1_024
"""Record batches whose descriptions are kept, a few KB each; to read them again takes longer than to take a row."""
FEW_ROWS = 100
"""Up to so many rows are sliced one by one, which takes less time than to sort them and take those of each batch."""


class MappedRows:
    """The rows of an index. Safe to read from several threads."""

    def __init__(self, folder: Path, files: RowFiles) -> None:
        """Map the files.

        Raises:
            StoreError: If a file is missing or too short.
        """
        self.files, self.num_rows, self.dim = files, files.num_rows, files.dim
        self._path, ids_path, arrow_path = files.paths(folder)
        vectors_bytes, ids_bytes, arrow_bytes = files.sizes
        self.mapped_NE = np.frombuffer(_map(self._path, vectors_bytes), files.dtype).reshape(-1, files.dim)
        """Vectors (float16 or float32 [N, E]), as they are in the file."""
        self._ids = np.frombuffer(_map(ids_path, ids_bytes), np.int64)
        self._arrow_map = _map(arrow_path, arrow_bytes)
        self._arrow = pa.py_buffer(self._arrow_map)
        try:
            self.schema = pa.ipc.read_schema(self._arrow)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise _damaged(arrow_path) from error
        self._arrow_path = arrow_path
        self._batches: dict[int, pa.RecordBatch] = {}

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """Vectors (float32 [n, E]) at some positions (int64 [n]); ascending is fastest."""
        return self.mapped_NE[positions].astype(np.float32, copy=False)

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Ids (int64, the shape of `positions`). A position of -1 has the id -1."""
        if not self.num_rows:
            return np.full(positions.shape, -1, np.int64)
        return np.where(positions < 0, -1, self._ids[np.maximum(positions, 0)])

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """Positions (int64) of those of `ids` (int64) that the index has, in their order; ascending is fastest."""
        places = np.searchsorted(self._ids, ids)
        if not self.num_rows:
            return np.empty(0, np.int64)
        return places[self._ids[np.minimum(places, self.num_rows - 1)] == ids]

    def metadata(self, positions: np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
        """The metadata of some rows, in the order of `positions` (int64 [n], none of them -1)."""
        columns = self.schema.names if columns is None else list(columns)
        schema = self.schema
        if columns != schema.names:
            schema = pa.schema([schema.field(name) for name in columns])
        if len(positions) <= FEW_ROWS:
            return pa.Table.from_batches(self._sliced(positions, columns), schema).combine_chunks()
        unique, back = np.unique(positions, return_inverse=True)  # the hits of many queries have many rows in common
        return pa.Table.from_batches(self._taken(unique, columns), schema).take(pa.array(back))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns of all rows, `id` among them if it is named, in order. Other columns are not read."""
        stored = [name for name in columns if name != "id"]
        bounds = itertools.pairwise([*self.files.starts, self.num_rows])
        for offset, (start, end) in zip(self.files.offsets, bounds, strict=True):
            batch = self._batch(offset, stored)
            self._read_ahead(batch)
            if "id" in columns:
                batch = batch.append_column("id", pa.array(self._ids[start:end]))
            yield batch

    def chunks(self, rows: int | None = None, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all vectors from a position on, as (position of the first, float32 [n, E]), `rows` at most at once."""
        rows = rows or max(1, CHUNK_BYTES // (4 * self.dim))
        dtype = np.dtype(self.files.dtype)
        with self._path.open("rb") as file:  # not mapped: mapped pages would count as memory of this process
            file.seek(start * self.dim * dtype.itemsize)
            for first in range(start, self.num_rows, rows):
                found = np.fromfile(file, dtype, min(rows, self.num_rows - first) * self.dim)
                yield first, found.reshape(-1, self.dim).astype(np.float32, copy=False)

    def as_index(self) -> faiss.Index:
        """An exact FAISS index whose vectors are the mapped file: nothing is copied. Keep this object alive with it."""
        is_half = self.files.dtype == "float16"
        index = faiss.index_factory(self.dim, "SQfp16" if is_half else "Flat", faiss.METRIC_INNER_PRODUCT)
        codes = self.mapped_NE.reshape(-1).view(np.uint8)
        if len(codes):
            nobody = index.codes.owner  # FAISS does not free what it does not own
            index.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(codes), codes.nbytes, nobody)
        index.ntotal = self.num_rows
        return index

    def _taken(self, positions: np.ndarray, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The metadata of rows that ascend, in as many batches as hold them."""
        numbers = np.searchsorted(self.files.starts, positions, side="right") - 1
        firsts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
        for first, end in itertools.pairwise([*firsts, len(numbers)]):
            number = numbers[first]
            places = pa.array(positions[first:end] - self.files.starts[number])
            try:
                yield self._batch(self.files.offsets[number], columns).take(places)
            except (pa.ArrowException, IndexError) as error:
                raise _damaged(self._arrow_path) from error

    def _sliced(self, positions: np.ndarray, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The metadata of rows, one by one."""
        numbers = np.searchsorted(self.files.starts, positions, side="right") - 1
        for position, number in zip(positions.tolist(), numbers.tolist(), strict=True):
            row = self._batch(self.files.offsets[number], columns).slice(position - self.files.starts[number], 1)
            if not row.num_rows:
                raise _damaged(self._arrow_path)
            yield row

    def _read_ahead(self, batch: pa.RecordBatch) -> None:
        """Have the system read all values of a batch at once; page by page takes five times as long."""
        for buffer in itertools.chain(*(column.buffers() for column in batch.columns)):
            start = buffer.address - self._arrow.address if buffer else -1
            if 0 <= start < self._arrow.size:
                first = start // mmap.PAGESIZE * mmap.PAGESIZE
                self._arrow_map.madvise(mmap.MADV_WILLNEED, first, start + buffer.size - first)

    def _batch(self, offset: int, columns: Sequence[str]) -> pa.RecordBatch:
        """The record batch that begins at a byte of the file. Its values are the mapped ones: nothing is read yet."""
        batch = self._batches.get(offset)
        if batch is None:
            try:
                batch = pa.ipc.read_record_batch(pa.ipc.read_message(self._arrow[offset:]), self.schema)
            except (pa.ArrowException, OSError, EOFError) as error:
                raise _damaged(self._arrow_path) from error
            if len(self._batches) < KEPT_BATCHES:
                self._batches[offset] = batch
        return batch if columns == self.schema.names else batch.select(columns)


def _damaged(path: Path) -> StoreError:
    return StoreError(f"{path} is damaged; run `clipsieve index --check`, then --rebuild")


def _map(path: Path, num_bytes: int) -> mmap.mmap | bytes:
    """The first bytes of a file, mapped; what is nothing cannot be mapped."""
    advice = "rebuild the index with `clipsieve index --rebuild`"
    try:
        with path.open("rb") as file:
            found = path.stat().st_size
            if found < num_bytes:
                raise StoreError(f"{path} has {found} bytes, its manifest says {num_bytes}; {advice}")
            if not num_bytes:
                return b""
            mapped = mmap.mmap(file.fileno(), num_bytes, access=mmap.ACCESS_READ)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}; {advice}") from error
    mapped.madvise(mmap.MADV_RANDOM)
    return mapped
