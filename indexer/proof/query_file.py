"""Read queries that are vectors: a Parquet file with a column `embedding`, as others write it, or a cache of our own.

Shapes: Q queries, E embedding width.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.proof.queries import TextQueries
from pipeline.errors import InputError, first_line
from pipeline.store.parts import METADATA_KEY

VECTOR_COLUMN = "embedding"
MIN_QUERIES = 1_000
"""To tune with, and to prove with."""

MAX_QUERIES = 100_000
"""Of larger files, a sample tunes and proves."""

_BATCH_ROWS = 8_192
_IMAGE_KEY = "image_policy"  # in the metadata of a store's parts


def text_queries_of(path: Path, dim: int, text_space: str) -> TextQueries:
    """Text vectors of a file, one half to tune with and the other to prove with.

    Args:
        path: A Parquet file; see `read_query_vectors`.
        dim: Width of the embeddings.
        text_space: Text space of the store.

    Raises:
        InputError: If the file cannot be used, or has fewer than two different vectors.
    """
    return halves(path, read_query_vectors(path, dim, text_space))


def halves(path: Path, vectors_QE: np.ndarray) -> TextQueries:
    """The vectors of a file, one half to prove with and the other to tune with.

    Raises:
        InputError: If there are fewer than two.
    """
    half = len(vectors_QE) // 2
    if not half:
        raise InputError(f"queries {path}: expected two different vectors or more, to tune and to prove with")
    others = f"{half:,} other{'s' * (half != 1)}"
    return make_text_queries(vectors_QE[half:], vectors_QE[:half], vectors_of(path, len(vectors_QE) - half), others)


def vectors_of(path: Path, num_vectors: int) -> str:
    """What some vectors of a file are, for people."""
    return f"{num_vectors:,} vector{'s' * (num_vectors != 1)} of {path.name}"


def make_text_queries(proving_QE: np.ndarray, tuning_QE: np.ndarray, proving: str, tuning: str) -> TextQueries:
    """Put queries together. `proving` and `tuning` say what they are, for people."""
    proving_QE = np.ascontiguousarray(proving_QE, np.float32)
    return TextQueries(
        tuning_QE=np.ascontiguousarray(tuning_QE, np.float32),
        proving_QE=proving_QE,
        source=f"proven with {proving}, tuned with {tuning}",
        sha256=hashlib.sha256(proving_QE.tobytes()).hexdigest(),
    )


def read_query_vectors(path: Path, dim: int, text_space: str | None = None) -> np.ndarray:
    """Read text vectors to tune and prove with: all different ones, shuffled, or a sample of `MAX_QUERIES`.

    Args:
        path: A Parquet file; see `iterate_query_vectors`.
        dim: Width of the embeddings.
        text_space: Text space that the vectors must be in, if the file says which it is.

    Returns:
        Unit float32 [Q, E], in the same order for the same file.

    Raises:
        InputError: If the file has no vectors, or cannot be used. The message names the row.
    """
    if _IMAGE_KEY in _metadata(_open(path)):
        raise InputError(f"queries {path}: it has image vectors, as a part of a store; pass vectors of texts")
    rng = np.random.default_rng(0)
    num_rows = _open(path).metadata.num_rows
    chosen = np.sort(rng.choice(num_rows, min(num_rows, MAX_QUERIES), replace=False))
    found, first = [np.empty((0, dim), np.float32)], 0
    for vectors_QE in iterate_query_vectors(path, dim, text_space):
        start, end = np.searchsorted(chosen, [first, first + len(vectors_QE)])
        found.append(vectors_QE[chosen[start:end] - first])
        first += len(vectors_QE)
    different = np.unique(np.concatenate(found), axis=0)
    return different[rng.permutation(len(different))]


def iterate_query_vectors(path: Path, dim: int, text_space: str | None = None) -> Iterator[np.ndarray]:
    """Yield the vectors of a file in its order, as unit float32 [Q, E]; all of them are checked.

    Args:
        path: A Parquet file with a column `embedding`: lists of floats, of fixed size or not.
        dim: Width of the embeddings.
        text_space: Text space that the vectors must be in, if the file says which it is.

    Raises:
        InputError: If the file is not there, is no Parquet, has no vectors or those of another width or text space, or
            a row is null, zero or not finite. The message names the row.
    """
    file = _open(path)
    own_space = _metadata(file).get("text_space")
    if text_space and own_space and own_space != text_space:
        raise InputError(
            f"queries {path}: they are in text space {own_space[:16]}, but the store is in {text_space[:16]}; embed "
            "the texts with the store's model"
        )
    if VECTOR_COLUMN not in file.schema_arrow.names:
        raise InputError(
            f"queries {path} has no column {VECTOR_COLUMN!r}, only {', '.join(file.schema_arrow.names)}; rename the "
            "column of vectors"
        )
    kind = file.schema_arrow.field(VECTOR_COLUMN).type
    if not _is_vector(kind):
        raise InputError(f"queries {path}: column {VECTOR_COLUMN!r} is {kind}, expected lists of {dim} floats")
    if not file.metadata.num_rows:
        raise InputError(f"queries {path} is empty; expected one vector per row")
    first_row = 1
    try:
        for batch in file.iter_batches(_BATCH_ROWS, columns=[VECTOR_COLUMN]):
            yield _unit(batch.column(0), dim, path, first_row)
            first_row += len(batch)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read queries {path} (after row {first_row - 1}): {first_line(error)}") from error


def has_vectors(path: Path) -> bool:
    """Whether a file of queries has vectors; otherwise it has texts.

    Raises:
        InputError: If it is a Parquet file that cannot be read.
    """
    return path.suffix.lower() == ".parquet" and VECTOR_COLUMN in _open(path).schema_arrow.names


def _open(path: Path) -> pq.ParquetFile:
    if path.suffix.lower() != ".parquet":
        raise InputError(f"queries {path}: vectors are read from Parquet; expected a name that ends in .parquet")
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"cannot read queries {path}: {getattr(error, 'strerror', None) or first_line(error)}; expected a Parquet "
            "file"
        ) from error


def _metadata(file: pq.ParquetFile) -> dict[str, str]:
    """What a file that clipsieve has written says of its vectors; empty for files of others."""
    try:
        found = json.loads((file.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_vector(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and pa.types.is_floating(kind.value_type)


def _unit(column: pa.Array, dim: int, path: Path, first_row: int) -> np.ndarray:
    if column.null_count:
        _refuse(path, first_row, np.asarray(column.is_null()), "it has no vector; leave the row out")
    lengths = np.asarray(column.value_lengths())
    _refuse(
        path, first_row, lengths != dim, f"its vector has {{}} numbers, but those of the store have {dim}; embed the "
        "texts with the store's model", lengths,
    )  # fmt: skip
    kind = np.float64 if pa.types.is_float64(column.type.value_type) else np.float32
    values = column.flatten().to_numpy(zero_copy_only=False).astype(kind).reshape(-1, dim)
    largest = np.abs(values).max(axis=1, initial=0, keepdims=True)
    _refuse(path, first_row, ~np.isfinite(largest[:, 0]), "its vector is not finite; leave the row out")
    _refuse(path, first_row, largest[:, 0] == 0, "its vector is zero; leave the row out")
    values /= largest  # their squares may be out of range
    values /= np.sqrt(np.einsum("qe,qe->q", values, values))[:, None]
    return values.astype(np.float32, copy=False)


def _refuse(path: Path, first_row: int, is_bad: np.ndarray, reason: str, values: np.ndarray | None = None) -> None:
    bad = np.flatnonzero(is_bad)
    if len(bad):
        found = "" if values is None else values[bad[0]]
        raise InputError(f"queries {path}, row {first_row + bad[0]}: {reason.format(found)}")
