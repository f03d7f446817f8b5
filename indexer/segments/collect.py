"""From a store's parts to a segment, shard by shard. Continues where a killed build stopped."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from indexer.segments.record import Segment
from pipeline.durable.atomic import write_json
from pipeline.durable.seal import sha256_of
from pipeline.errors import StoreError, first_line
from pipeline.store.parts import METADATA_KEY, ROW_GROUP_ROWS, embeddings_of, kept_rows, part_schema
from pipeline.store.records import CommitMarker
from pipeline.store.view import StoreView

STATE_FILE = "segment.json"
MAX_LENGTH_ERROR = 0.01
"""Of a vector: float16 rounds its length by 0.001 at most."""

ROW_COLUMNS = ("key", "uri", "caption", "width", "height")


class _Collected(BaseModel):
    """How far a segment is: written after each shard."""

    model_config = ConfigDict(extra="forbid")

    number: int
    parts: dict[int, str] = {}
    """Hashes of the parts that are in the files."""
    sizes: tuple[int, int, int] = (0, 0, 0)
    """Bytes of the three files that are complete."""
    num_rows: int = 0
    offsets: list[int] = []
    starts: list[int] = []


def collect(
    view: StoreView,
    ordinals: Sequence[int],
    number: int,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda num_done, num_total: None,
) -> Segment:
    """Write the live rows of some shards to the files of a segment.

    Args:
        view: The store.
        ordinals: The shards, ascending.
        number: The segment's number.
        folder: Where the files go. They are complete once this returns; until then, the folder has a state file.
        on_progress: Called after each shard with the number of rows done and their total.

    Raises:
        StoreError: If a part is damaged or from another encoder, or the files cannot be written.
    """
    dtype = "float32" if view.record.encoder.precision == "fp32" else "float16"
    segment = Segment(
        number=number, num_rows=0, dim=view.record.encoder.embedding_dim, dtype=dtype, offsets=(), starts=()
    )
    paths, total = segment.paths(folder), sum(view.committed[ordinal].num_ok for ordinal in ordinals)
    state = _resumed(folder, number, {ordinal: view.committed[ordinal].sha256 for ordinal in ordinals}, paths)
    try:
        with ExitStack() as opened:
            files = [opened.enter_context(path.open("r+b" if state.parts else "w+b")) for path in paths]
            for file, size in zip(files, state.sizes, strict=True):
                file.truncate(size)
                file.seek(size)
            if not state.parts:
                files[2].write(_row_schema(view).serialize())
            for ordinal in ordinals:
                if ordinal not in state.parts:
                    _append(view, view.committed[ordinal], files, segment, state)
                    state.parts[ordinal] = view.committed[ordinal].sha256
                    _save(folder, files, state)
                on_progress(sum(view.committed[done].num_ok for done in state.parts), total)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}; free up space or fix its permissions") from error
    return segment.model_copy(
        update={"num_rows": state.num_rows, "offsets": tuple(state.offsets), "starts": tuple(state.starts)}
    )


def live_batches(
    view: StoreView, marker: CommitMarker, columns: Sequence[str] = (), groups: Sequence[int] | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, pa.Table]]:
    """Yield ids (int64 [n]), unit vectors (float32 [n, E]) and other columns of a part's live rows, by row group.

    Args:
        view: The store.
        marker: The part's commit marker.
        columns: The other columns.
        groups: Only these row groups.

    Raises:
        StoreError: If the part cannot be read, is from another encoder, or holds a vector that is not finite.
    """
    path = view.store.part_of(marker)
    try:
        with pq.ParquetFile(path) as part:
            _check_encoder(path, part.schema_arrow, view)
            for group in range(part.num_row_groups) if groups is None else groups:
                table = part.read_row_group(group, ["id", "status", "embedding", *columns])
                ids, vectors = embeddings_of(table)
                _check_vectors(path, ids, vectors, view)
                is_live = ~np.isin(ids, view.deleted)
                table = kept_rows(table, pa.compute.is_in(table["id"], pa.array(ids[is_live])))
                yield ids[is_live], vectors[is_live], table.select(list(columns))
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"cannot read {path}: {first_line(error)}; run `clipsieve verify {view.root}`") from error


def _check_encoder(path: Path, schema: pa.Schema, view: StoreView) -> None:
    fingerprint = json.loads(schema.metadata[METADATA_KEY])["fingerprint"]
    if fingerprint != view.record.fingerprint:
        raise StoreError(
            f"{path} is from encoder {fingerprint}, but the store is from {view.record.fingerprint}; delete the "
            "part and its commit marker, then run the same embed command again"
        )


def _check_vectors(path: Path, ids: np.ndarray, vectors: np.ndarray, view: StoreView) -> None:
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = ~(np.abs(lengths - 1) <= MAX_LENGTH_ERROR)  # NaN is wrong, too
    if wrong.any():
        first = int(np.argmax(wrong))
        raise StoreError(
            f"{path} holds {wrong.sum()} vectors that are not of unit length (the first is id {ids[first]}, length "
            f"{lengths[first]:.3g}); run `clipsieve verify {view.root}`"
        )


def _row_schema(view: StoreView) -> pa.Schema:
    schema = part_schema(view.record.encoder.embedding_dim, half=True, columns=view.record.columns)
    return pa.schema([schema.field(name) for name in (*ROW_COLUMNS, *view.record.columns)])


def _resumed(folder: Path, number: int, wanted: dict[int, str], paths: Sequence[Path]) -> _Collected:
    try:
        state = _Collected.model_validate_json((folder / STATE_FILE).read_bytes())
        intact = all(path.stat().st_size >= size for path, size in zip(paths, state.sizes, strict=True))
    except (OSError, ValueError):
        return _Collected(number=number)
    in_order = list(wanted.items())[: len(state.parts)] == list(state.parts.items())
    return state if state.number == number and intact and in_order else _Collected(number=number)


def _append(
    view: StoreView, marker: CommitMarker, files: Sequence[BinaryIO], segment: Segment, state: _Collected
) -> None:
    path = view.store.part_of(marker)
    if sha256_of(path) != marker.sha256:
        raise StoreError(
            f"{path} is damaged: its hash does not match its commit marker; delete both, then run the same embed "
            "command again"
        )
    vectors_file, ids_file, rows_file = files
    for ids, vectors, table in live_batches(view, marker, [*ROW_COLUMNS, *view.record.columns]):
        vectors_file.write(vectors.astype(segment.dtype).tobytes())
        ids_file.write(ids.tobytes())
        for batch in table.cast(_row_schema(view)).combine_chunks().to_batches(max_chunksize=ROW_GROUP_ROWS):
            state.starts.append(state.num_rows)
            state.offsets.append(rows_file.tell())
            rows_file.write(batch.serialize())
            state.num_rows += batch.num_rows


def _save(folder: Path, files: Sequence[BinaryIO], state: _Collected) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
    state.sizes = tuple(file.tell() for file in files)
    write_json(folder / STATE_FILE, state.model_dump())
