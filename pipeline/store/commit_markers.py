"""Commit markers, `part-00000.stats.json` on disk. Each is written after its part, and then the shard is committed."""

from typing import Any

import pyarrow as pa

from pipeline.durable.atomic import write_atomically
from pipeline.durable.seal import sha256_of, unsealed_json, write_sealed_json
from pipeline.store.layout import Store
from pipeline.store.parts import write_part
from pipeline.store.records import CommitMarker, Shard, StoreRecord


def commit_shard(store: Store, table: pa.Table, fields: dict[str, Any]) -> CommitMarker:
    """Write a shard's part, then its marker.

    Args:
        store: The store.
        table: The rows; see `parts.part_table`.
        fields: All fields of `CommitMarker` except `sha256` and `num_bytes`.

    Raises:
        StoreError: If the file system refuses.
    """
    ordinal = fields["ordinal"]
    path = store.part_path(ordinal, fields.get("compaction", 0))
    if path.exists():  # for example, left by a slower worker; a marker must never describe another part
        store.marker_path(ordinal).unlink(missing_ok=True)
    write_atomically(path, lambda temporary: write_part(temporary, table))
    marker = CommitMarker(**fields, sha256=sha256_of(path), num_bytes=path.stat().st_size)
    write_sealed_json(store.marker_path(ordinal), marker.model_dump(mode="json"))
    return marker


def read_marker(store: Store, ordinal: int) -> CommitMarker:
    """Read a marker, without checking which plan or encoder it names.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged.
    """
    return CommitMarker.model_validate(unsealed_json(store.marker_path(ordinal).read_bytes()))


def committed_markers(store: Store, record: StoreRecord) -> dict[int, CommitMarker]:
    """The marker of every committed shard, by ordinal.

    A marker counts only if it names this shard and this encoder, and its part has the size it names.
    """
    found = {}
    for shard in record.shards:
        marker = _read_whole(store, shard)
        if marker and (marker.shard_id, marker.fingerprint) == (shard.shard_id, record.fingerprint):
            found[shard.ordinal] = marker
    return found


def _read_whole(store: Store, shard: Shard) -> CommitMarker | None:
    try:
        marker = read_marker(store, shard.ordinal)
        return marker if store.part_of(marker).stat().st_size == marker.num_bytes else None
    except (FileNotFoundError, ValueError):
        return None
