"""Check one part: its table against its marker, its plan, its list and the encoder. Pure functions."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.source.access.credentials import bare_entry
from pipeline.source.entry import ImageEntry, Status
from pipeline.store.parts import METADATA_KEY, embeddings_of, kept_rows, part_schema
from pipeline.store.records import CommitMarker, Shard, StoreRecord

NORM_TOLERANCE = {"fp32": 1e-5, **dict.fromkeys(("bf16", "fp16", "int8", "fp8"), 2e-3)}
"""How much the norm of a stored embedding may differ from 1. Embeddings are in half precision unless `fp32`."""


def faults_of(
    table: pa.Table,
    record: StoreRecord,
    shard: Shard,
    marker: CommitMarker,
    *,
    entries: Sequence[ImageEntry] | None,
    deleted: np.ndarray | None,
) -> Iterator[str]:
    """Yield a description of each fault in a part.

    Args:
        table: The whole part.
        record: The record of its store.
        shard: The shard as planned.
        marker: The shard's commit marker.
        entries: The shard's images, if the plan lists them.
        deleted: Ids (int64, ascending) of its deleted and replaced rows. None if unknown.
    """
    schema = part_schema(record.encoder.embedding_dim, record.encoder.precision != "fp32", record.columns)
    if not table.schema.equals(schema):
        pair = zip([*table.schema, None], [*schema, None], strict=False)
        found, expected = next((found, expected) for found, expected in pair if found != expected)
        yield f"it has column {found}, expected {expected}"
        return
    yield from _metadata_faults(table, record, shard)
    yield from _count_faults(table, shard, marker)
    yield from _null_faults(table, record.is_imported)
    yield from _norm_faults(table, NORM_TOLERANCE[record.encoder.precision])
    faults = list(_id_faults(table["id"].to_numpy(), shard, marker, deleted))
    yield from faults
    if entries is not None and not faults:
        yield from _entry_faults(table, shard, entries)


def _metadata_faults(table: pa.Table, record: StoreRecord, shard: Shard) -> Iterator[str]:
    try:
        found = json.loads((table.schema.metadata or {})[METADATA_KEY])
    except (KeyError, ValueError):
        yield "its file metadata does not name its encoder"
        return
    expected = {"fingerprint": record.fingerprint, "text_space": record.text_space, "image_policy": record.image_space}
    for name, value in {**expected, "shard_id": shard.shard_id}.items():
        if found.get(name) != value:
            yield f"its file metadata has {name} {found.get(name)}, expected {value}"


def _count_faults(table: pa.Table, shard: Shard, marker: CommitMarker) -> Iterator[str]:
    if table.num_rows != marker.num_images:
        yield f"it has {table.num_rows} rows, its commit marker says {marker.num_images}"
    total = marker.num_images + marker.num_removed
    if total != (total if shard.num_images is None else shard.num_images) or total > shard.room:
        yield f"{total} images were embedded, {shard.num_images or shard.room} were planned"
    counts = Counter(table["status"].to_pylist())
    unknown = sorted(set(counts) - set(Status))
    if unknown:
        yield f"it has status {unknown[0]!r}, expected one of {', '.join(Status)}"
    num_ok = counts.pop(Status.OK, 0)
    if (num_ok, dict(counts)) != (marker.num_ok, marker.failed):
        found = f"{num_ok} ok rows and failed rows {dict(counts)}"
        yield f"it has {found}, its commit marker says {marker.num_ok} and {marker.failed}"


def _null_faults(table: pa.Table, is_imported: bool) -> Iterator[str]:
    is_ok = pc.equal(table["status"], Status.OK)
    names = {"embedding": "embedding", "tokens_kept": "number of tokens", "error": "error"}
    if is_imported:
        del names["tokens_kept"]  # nobody knows it
    for name, what in names.items():
        is_wrong = pc.equal(pc.is_null(table[name]), is_ok)
        if name == "error":
            is_wrong = pc.invert(is_wrong)
        wrong = kept_rows(table, is_wrong)
        if wrong.num_rows:
            first, has = wrong.slice(0, 1).to_pylist()[0], "no" if pc.is_null(wrong[name])[0].as_py() else "an"
            yield f"{wrong.num_rows} rows, first {first['key']!r}, have status {first['status']} and {has} {what}"


def _norm_faults(table: pa.Table, tolerance: float) -> Iterator[str]:
    table = kept_rows(table, pc.is_valid(table["embedding"]))
    ids, embeddings_NE = embeddings_of(table)
    norms_N = norms_of(embeddings_NE)
    wrong = np.flatnonzero(~(np.abs(norms_N - 1) < tolerance))  # also catches NaN
    if len(wrong):
        yield f"{len(wrong)} embeddings do not have norm 1, first id {ids[wrong[0]]} with {norms_N[wrong[0]]:.6f}"


def norms_of(embeddings_NE: np.ndarray) -> np.ndarray:
    """Lengths (float64 [N]) of embeddings (float32 [N, E])."""
    return np.sqrt(np.einsum("ne,ne->n", embeddings_NE, embeddings_NE, dtype=np.float64))


def _id_faults(ids: np.ndarray, shard: Shard, marker: CommitMarker, deleted: np.ndarray | None) -> Iterator[str]:
    expected = np.arange(shard.first_id, shard.first_id + marker.num_images + marker.num_removed)
    if not (np.diff(ids) > 0).all() or not np.isin(ids, expected).all():
        yield f"its ids are not ascending or not in {shard.first_id}..{shard.first_id + len(expected) - 1}"
        return
    missing = np.setdiff1d(expected, ids)
    if marker.compaction and deleted is not None:
        missing = np.setdiff1d(missing, deleted)
    if len(missing) and (deleted is not None or not marker.compaction):
        yield f"{len(missing)} rows are missing without a tombstone, first id {missing[0]}"


def _entry_faults(table: pa.Table, shard: Shard, entries: Sequence[ImageEntry]) -> Iterator[str]:
    columns = (table[name].to_pylist() for name in ("id", "key", "uri"))
    for number, key, uri in zip(*columns, strict=True):
        row = number - shard.first_id
        listed = bare_entry(entries[row]) if row < len(entries) else None
        # plans of earlier versions hold credentials, and so do the rows that those versions wrote
        if listed is None or (key, uri) not in [(listed.key, listed.uri), (entries[row].key, entries[row].uri)]:
            yield f"row {number} is {(key, uri)}, but the plan lists {listed and (listed.key, listed.uri)}"
            return
