"""Embed texts within a time limit, and keep the vectors in the user's cache directory, by text space.

A cache file is a Parquet file with the columns `query` and `embedding`, so it can itself be given as queries.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.durable.atomic import write_atomically
from pipeline.errors import StoreError
from pipeline.machine import cache_folder
from pipeline.store.parts import METADATA_KEY

_FOLDER = "text-vectors"
_BATCH_TEXTS = 64


class TextEncoder(Protocol):
    """Embeds texts."""

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Unit vectors [n, E]."""


def text_vectors(
    texts: Sequence[str],
    text_space: str,
    encoder: Callable[[], TextEncoder],
    limit_s: float,
    on_progress: Callable[[int], None] = lambda num_texts: None,
) -> np.ndarray:
    """The vectors of as many texts as can be embedded in the time; from the cache, if they were embedded before.

    Args:
        texts: At least one.
        text_space: Text space of the encoder.
        encoder: Loads the encoder. Not called if the cache has the vectors.
        limit_s: Seconds that embedding may take. A first batch is embedded whatever it takes.
        on_progress: Called after each batch with the number of its texts.

    Returns:
        Unit float32 [Q, E] of the first Q texts, Q <= len(texts).
    """
    path = _path(texts, text_space)
    cached = _read(path, texts, text_space, limit_s)
    if cached is not None:
        return cached
    loaded, parts = encoder(), []
    started = ended = time.perf_counter()
    for start in range(0, len(texts), _BATCH_TEXTS):
        began, batch = ended, list(texts[start : start + _BATCH_TEXTS])
        parts.append(loaded.encode_texts(batch))
        on_progress(len(batch))
        ended = time.perf_counter()
        if ended - started + (ended - began) > limit_s:  # the next batch would end too late
            break
    vectors_QE = np.concatenate(parts)
    _write(path, texts, text_space, limit_s, vectors_QE)
    return vectors_QE


def _path(texts: Sequence[str], text_space: str) -> Path:
    return cache_folder() / _FOLDER / f"{_hash_of_texts([text_space, *texts])[:32]}.parquet"


def _hash_of_texts(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def _read(path: Path, texts: Sequence[str], text_space: str, limit_s: float) -> np.ndarray | None:
    """The vectors of a cache file. None if it is missing, damaged or foreign, or a longer limit could give more."""
    try:
        table = pq.read_table(path, columns=["query", "embedding"])
        metadata = json.loads(table.schema.metadata[METADATA_KEY])
        column = table["embedding"].combine_chunks()
        vectors_QE = column.flatten().to_numpy(zero_copy_only=True).reshape(len(table), -1)
        own = (metadata["text_space"], metadata["vectors_sha256"], table["query"].to_pylist())
        if not len(table) or own != (text_space, _hash(vectors_QE), list(texts[: len(table)])):
            return None
        return vectors_QE if len(table) == len(texts) or limit_s <= float(metadata["limit_s"]) else None
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(path: Path, texts: Sequence[str], text_space: str, limit_s: float, vectors_QE: np.ndarray) -> None:
    num_texts, dim = vectors_QE.shape
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(vectors_QE.ravel()), dim)
    metadata = {"text_space": text_space, "vectors_sha256": _hash(vectors_QE), "limit_s": limit_s}
    table = pa.table({"query": pa.array(texts[:num_texts]), "embedding": vectors})
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()})
    with suppress(OSError, StoreError):  # a home that cannot be written does without
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: pq.write_table(table, temporary))


def _hash(vectors_QE: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(vectors_QE).tobytes()).hexdigest()
