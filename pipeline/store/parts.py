"""The Parquet contract of a part: its columns and file metadata, written and read.

Every image is one row, including failures. A part contains nothing that varies with time: the same images, encoder and
library versions give the same bytes.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.durable.seal import sha256_of
from pipeline.errors import ConfigError, StoreError, first_line
from pipeline.model.spec import ClaimedSpec, EncoderSpec, spec_metadata
from pipeline.source.entry import ImageResult, Status

SCHEMA_VERSION = 2
METADATA_KEY = b"clipsieve"
ROW_GROUP_ROWS = 10_000
_FILTERED_AS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
"""Arrow cannot filter these types."""


def part_schema(embedding_dim: int, half: bool, columns: dict[str, str] | None = None) -> pa.Schema:
    """Columns of a part. Embeddings are float16 if `half`, otherwise float32. `columns` are carried from the source."""
    element = pa.float16() if half else pa.float32()
    return pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("key", pa.string(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("caption", pa.string()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("sha256", pa.string()),
            pa.field("status", pa.string(), nullable=False),
            pa.field("error", pa.string()),
            pa.field("tokens_kept", pa.int32()),
            *(pa.field(name, pa.type_for_alias(kind)) for name, kind in (columns or {}).items()),
            pa.field("embedding", pa.list_(element, embedding_dim)),
        ]
    )


def refuse_taken_names(columns: Iterable[str]) -> None:
    """Refuse carried columns that have the same name as a part's own columns.

    Raises:
        ConfigError: If there is one. The message names the first.
    """
    own = part_schema(1, half=False).names
    taken = next((name for name in columns if name in own), None)
    if taken:
        raise ConfigError(f"--columns {taken}: every row already has a column with that name; rename it in the source")


def part_table(
    results: Sequence[ImageResult],
    embeddings: np.ndarray,
    *,
    first_id: int,
    tokens_kept: int | None,
    spec: EncoderSpec | ClaimedSpec,
    shard_id: str,
    columns: dict[str, str] | None = None,
) -> pa.Table:
    """Build the table of one shard.

    Args:
        results: One per image, in plan order.
        embeddings: [rows, E] float32, unit length. Rows of failed images are ignored.
        first_id: Id of the first row. The ids of the other rows follow.
        tokens_kept: Number of patch tokens that reach the end of the tower. None if unknown.
        spec: The encoder, written to the file's metadata.
        shard_id: Content hash of the shard's listing.
        columns: Columns carried from the source, with their Arrow types.

    Returns:
        A table with `part_schema`. `embedding` and `tokens_kept` are null where status is not ok.
    """
    assert embeddings.shape == (len(results), spec.embedding_dim)
    half = spec.precision != "fp32"
    schema = part_schema(spec.embedding_dim, half, columns)
    failed = np.array([not result.is_ok for result in results], dtype=bool)
    values = embeddings.astype(np.float16 if half else np.float32)
    values[failed] = 0
    values_of: dict[str, Any] = {
        name: [getattr(result, name) for result in results]
        for name in ("key", "uri", "caption", "width", "height", "sha256", "status", "error")
    }
    values_of |= {name: [(result.extra or {}).get(name) for result in results] for name in columns or {}}
    values_of["id"] = np.arange(first_id, first_id + len(results), dtype=np.int64)
    tokens = np.full(len(results), tokens_kept or 0, dtype=np.int32)
    values_of["tokens_kept"] = pa.array(tokens, mask=failed | (tokens_kept is None))
    values_of["embedding"] = pa.FixedSizeListArray.from_arrays(
        pa.array(values.reshape(-1)), type=schema.field("embedding").type, mask=pa.array(failed)
    )
    metadata = {"schema_version": SCHEMA_VERSION, "shard_id": shard_id, **spec_metadata(spec)}
    table = pa.table([values_of[name] for name in schema.names], schema=schema)
    return table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()})


def write_part(path: Path, table: pa.Table) -> None:
    """Write `table` to `path` directly. The caller makes it atomic."""
    # embeddings do not repeat, so dictionary encoding makes them larger, and slower to write and read
    repeated = [name for name in table.schema.names if name != "embedding"]
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS, use_dictionary=repeated)


def read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a part, or some of its columns.

    Raises:
        StoreError: If the file is not an intact Parquet file or lacks a column.
    """
    try:
        return pq.read_table(path, columns=list(columns) if columns else None, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        reason = first_line(error)
        raise StoreError(
            f"cannot read {path}: {reason}; delete it and its commit marker, then run the command that made the store"
        ) from error


def read_part_checked(path: Path, sha256: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a part, or some of its columns, after checking its bytes against the hash in its commit marker.

    Raises:
        StoreError: If the hash does not match, or the file cannot be read.
    """
    if sha256_of(path) != sha256:
        raise StoreError(
            f"{path} is damaged: its hash does not match its commit marker; delete both, then run the command "
            "that made the store"
        )
    return read_part(path, columns)


def kept_rows(table: pa.Table, is_kept: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The rows of a part, or of some of its columns, where a mask is true. The types of the columns stay."""
    plain = [field.with_type(_FILTERED_AS.get(field.type, field.type)) for field in table.schema]
    return table.cast(pa.schema(plain, table.schema.metadata)).filter(is_kept).cast(table.schema)


def ok_ids(table: pa.Table) -> np.ndarray:
    """Ids (int64 [n]) of a part's ok rows. Needs columns id and status."""
    return table["id"].filter(pc.equal(table["status"], Status.OK)).to_numpy()


def embeddings_of(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Ids (int64 [n]) and embeddings (float32 [n, E]) of a part's ok rows. Needs columns id, status and embedding."""
    ok = kept_rows(table, pc.equal(table["status"], Status.OK))
    column = ok["embedding"].combine_chunks()
    dim = column.type.list_size
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return ok["id"].to_numpy(), values.reshape(-1, dim)
