"""TODO."""

import json
from collections.abc import Iterator

import numpy as np

from pipeline.errors import StoreError
from pipeline.store.layout import Store, sha256_of
from pipeline.store.parts import METADATA_KEY, embeddings_of, read_part
from pipeline.store.records import CommitMarker, StoreRecord
from pipeline.store.tombstones import read_tombstones


def live_vectors(
    store: Store, record: StoreRecord, committed: dict[int, CommitMarker]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    gone = read_tombstones(store)
    for _, stats in sorted(committed.items()):
        path = store.part_of(stats)
        if sha256_of(path) != stats.sha256:
            raise StoreError(f"{path} is damaged: its bytes are not those of its stats file; remove both, embed again")
        table = read_part(path, ["id", "status", "embedding"])
        fingerprint = json.loads(table.schema.metadata[METADATA_KEY])["fingerprint"]
        if fingerprint != record.fingerprint:
            raise StoreError(f"{path} is of encoder {fingerprint}, the store of {record.fingerprint}; remove it")
        ids, embeddings = embeddings_of(table)
        alive = ~np.isin(ids, gone)
        yield ids[alive], embeddings[alive]
