"""From a store's parts to the files of the rows, shard by shard. Continues where a killed build stopped."""

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

from indexer.rows.record import RowFiles
from pipeline.durable.atomic import write_json
from pipeline.durable.seal import sha256_of
from pipeline.errors import StoreError, first_line
from pipeline.store.parts import METADATA_KEY, ROW_GROUP_ROWS, embeddings_of, kept_rows, part_schema
from pipeline.store.records import CommitMarker
from pipeline.store.tombstones import tombstones_between
from pipeline.store.view import StoreView

MAX_LENGTH_ERROR = 0.01
"""Of a vector: float16 rounds its length by 0.001 at most."""

COLUMNS = ("key", "uri", "caption", "width", "height")


class _Collected(BaseModel):
    """How far the files are: written after each shard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: dict[int, str]
    """Hashes of the parts that were appended."""
    files: RowFiles


def collect(
    view: StoreView,
    ordinals: Sequence[int],
    old: RowFiles | int,
    folder: Path,
    state_path: Path,
    on_progress: Callable[[int, int], None] = lambda num_done, num_total: None,
) -> RowFiles:
    """Append the live rows of some shards to the files of the rows.

    Args:
        view: The store.
        ordinals: The shards, ascending.
        old: The rows that the files have already, or the number of files to begin.
        folder: Where the files are.
        state_path: Where to keep how far they are. If the file is there from the same work, it continues.
        on_progress: Called after each shard with the number of rows done and their total.

    Raises:
        StoreError: If a part is damaged or from another encoder, or the files cannot be written.
    """
    if isinstance(old, int):
        dtype = "float32" if view.record.encoder.precision == "fp32" else "float16"
        old = RowFiles(number=old, num_rows=0, dim=view.record.encoder.embedding_dim, dtype=dtype)
    total = sum(view.committed[ordinal].num_ok for ordinal in ordinals)
    state = _resumed(view, ordinals, old, folder, state_path)
    try:
        with ExitStack() as opened:
            files = [opened.enter_context(_open(path)) for path in state.files.paths(folder)]
            for file, size in zip(files, state.files.sizes, strict=True):
                file.truncate(size)
                file.seek(size)
            if not state.files.arrow_bytes:
                files[2].write(_row_schema(view).serialize())
                state = _saved(state_path, files, state.parts, state.files)
            for ordinal in ordinals:
                marker = view.committed[ordinal]
                if ordinal not in state.parts:
                    appended = _append(view, marker, files, state.files)
                    state = _saved(state_path, files, state.parts | {ordinal: marker.sha256}, appended)
                on_progress(sum(view.committed[done].num_ok for done in state.parts), total)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}; free up space or fix its permissions") from error
    return state.files


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
                # not all tombstones for each row group: a large store has millions of them
                is_live = ~np.isin(ids, tombstones_between(view.deleted, range(*_bounds(ids))))
                table = kept_rows(table, pa.compute.is_in(table["id"], pa.array(ids[is_live])))
                yield ids[is_live], vectors[is_live], table.select(list(columns))
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"cannot read {path}: {first_line(error)}; run `clipsieve verify {view.root}`") from error


def _bounds(ids: np.ndarray) -> tuple[int, int]:
    return (int(ids[0]), int(ids[-1]) + 1) if len(ids) else (0, 0)


def num_row_groups(view: StoreView, marker: CommitMarker) -> int:
    """The number of row groups of a part."""
    path = view.store.part_of(marker)
    try:
        return pq.read_metadata(path).num_row_groups
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
    return pa.schema([schema.field(name) for name in (*COLUMNS, *view.record.columns)])


def _open(path: Path) -> BinaryIO:
    return path.open("r+b" if path.exists() else "w+b")


def _resumed(view: StoreView, ordinals: Sequence[int], old: RowFiles, folder: Path, state_path: Path) -> _Collected:
    fresh = _Collected(parts={}, files=old)
    try:
        state = _Collected.model_validate_json(state_path.read_bytes())
        sizes = [path.stat().st_size for path in state.files.paths(folder)]
    except (OSError, ValueError):
        return fresh
    begun = [(ordinal, view.committed[ordinal].sha256) for ordinal in ordinals][: len(state.parts)]
    is_same_work = state.files.number == old.number and state.files.starts[: len(old.starts)] == old.starts
    is_intact = all(size >= needed for size, needed in zip(sizes, state.files.sizes, strict=True))
    return state if is_same_work and is_intact and begun == list(state.parts.items()) else fresh


def _append(view: StoreView, marker: CommitMarker, files: Sequence[BinaryIO], old: RowFiles) -> RowFiles:
    path = view.store.part_of(marker)
    if sha256_of(path) != marker.sha256:
        raise StoreError(
            f"{path} is damaged: its hash does not match its commit marker; delete both, then run the same embed "
            "command again"
        )
    vectors_file, ids_file, arrow_file = files
    num_rows, offsets, starts = old.num_rows, [*old.offsets], [*old.starts]
    for ids, vectors, table in live_batches(view, marker, [*COLUMNS, *view.record.columns]):
        vectors_file.write(vectors.astype(old.dtype).tobytes())
        ids_file.write(ids.tobytes())
        for batch in table.cast(_row_schema(view)).combine_chunks().to_batches(max_chunksize=ROW_GROUP_ROWS):
            starts.append(num_rows)
            offsets.append(arrow_file.tell())
            arrow_file.write(batch.serialize())
            num_rows += batch.num_rows
    changes = {"num_rows": num_rows, "offsets": tuple(offsets), "starts": tuple(starts)}
    return old.model_copy(update=changes | {"arrow_bytes": arrow_file.tell()})


def _saved(path: Path, files: Sequence[BinaryIO], parts: dict[int, str], rows: RowFiles) -> _Collected:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
    state = _Collected(parts=parts, files=rows.model_copy(update={"arrow_bytes": files[2].tell()}))
    write_json(path, state.model_dump())
    return state
