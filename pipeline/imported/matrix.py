"""Embeddings as numbers: .npy matrices and columns of lists, and what makes a row unusable.

Shapes: N rows, E embedding width.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, first_line
from pipeline.store.faults import NORM_TOLERANCE, norms_of

_AT_ONCE = 1_000
"""Rows that are held in float64 at once."""


@dataclass(slots=True)
class RawEmbeddings:
    """Embeddings as their file has them: float16, float32 or float64 [N, E], with zeros where there is a fault."""

    values_NE: np.ndarray
    faults: dict[int, str] = field(default_factory=dict)
    """Why a row has no usable embedding, by its place."""


@dataclass(slots=True)
class UnitEmbeddings:
    """Embeddings of length 1: float32 [N, E], with zeros where there is a fault."""

    values_NE: np.ndarray
    faults: dict[int, str]
    num_normalised: int


def open_matrix(path: Path) -> np.ndarray:
    """Map a .npy matrix [N, E] of floats.

    Raises:
        InputError: If the file is missing, damaged, or not such a matrix.
    """
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the name and its permissions") from error
    except (ValueError, EOFError) as error:
        raise InputError(
            f"cannot read {path} as .npy: {first_line(error)}; replace it with an intact copy of a matrix of floats"
        ) from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.str[1:] not in ("f2", "f4", "f8"):
        found = f"{matrix.dtype} {matrix.shape}" if isinstance(matrix, np.ndarray) else "an archive of several arrays"
        raise InputError(f"{path} holds {found}, expected a matrix of float16, float32 or float64, one row per image")
    return matrix


def matrix_rows(path: Path, start: int, stop: int) -> RawEmbeddings:
    """Rows of a .npy matrix.

    Raises:
        InputError: If the file cannot be read.
    """
    return RawEmbeddings(np.array(open_matrix(path)[start:stop]))  # no longer mapped, so that memory stays bounded


def column_rows(column: pa.ChunkedArray, dim: int, where: str, first_row: int) -> RawEmbeddings:
    """Rows of a column of lists.

    Args:
        column: The lists, of any list type, or of an extension of one.
        dim: Expected number of values in each.
        where: The file, for messages.
        first_row: Number of the first row in the file, for messages.

    Raises:
        InputError: If a list has another number of values. An empty list is a fault of its row.
    """
    column = plain_lists(column)
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy()
    other = np.flatnonzero((lengths > 0) & (lengths != dim))
    if len(other):
        raise other_length(where, first_row + int(other[0]), int(lengths[other[0]]), dim)
    is_full = lengths == dim
    values_NE = np.zeros((len(lengths), dim), column.type.value_type.to_pandas_dtype())
    full = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.filter(pa.array(is_full)).chunks]
    if full:
        values_NE[is_full] = np.concatenate(full).reshape(-1, dim)  # null values become NaN
    faults = {
        int(row): "the embedding is empty" if lengths[row] == 0 else "there is no embedding"
        for row in np.flatnonzero(~is_full)
    }
    return RawEmbeddings(values_NE, faults)


def plain_lists(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of lists without the extension type that it may have."""
    if isinstance(column.type, pa.BaseExtensionType):
        return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return column


def other_length(where: str, row: int, found: int, expected: int) -> InputError:
    """The error for a row with another number of values than the rows before it."""
    return InputError(
        f"{where}: row {row} has an embedding of {found} values, expected {expected} as in the rows before it; import "
        "embeddings of different models into stores of their own"
    )


def unit_embeddings(raw: RawEmbeddings, is_half: bool) -> UnitEmbeddings:
    """Embeddings of length 1. Those that have it keep their bits; zero and values that are not finite are faults.

    Args:
        raw: The embeddings.
        is_half: Whether they are stored in float16.
    """
    tolerance = NORM_TOLERANCE["fp16" if is_half else "fp32"]
    faults, num_normalised = dict(raw.faults), 0
    values_NE = np.zeros(raw.values_NE.shape, np.float32)
    for start in range(0, len(values_NE), _AT_ONCE):
        some = raw.values_NE[start : start + _AT_ONCE]
        is_finite = np.isfinite(some).all(axis=1)
        largest = np.abs(some, where=is_finite[:, None], out=np.zeros(some.shape, some.dtype)).max(axis=1, initial=0)
        for row in np.flatnonzero(~is_finite | (largest == 0)).tolist():
            reason = "the embedding is zero" if is_finite[row] else "the embedding has values that are not finite"
            faults.setdefault(start + row, reason)
        is_good = is_finite & (largest > 0)
        good = some[is_good]
        with np.errstate(over="ignore"):  # float64 may hold what float32 cannot; such rows are normalised below
            stored = good.astype(np.float32)
            is_off = ~(np.abs(norms_of(stored) - 1) < tolerance)
        off = good[is_off].astype(np.float64) / largest[is_good][is_off, None].astype(np.float64)
        stored[is_off] = off / np.linalg.norm(off, axis=1, keepdims=True)
        values_NE[start : start + len(some)][is_good] = stored
        num_normalised += int(is_off.sum())
    return UnitEmbeddings(values_NE, faults, num_normalised)
