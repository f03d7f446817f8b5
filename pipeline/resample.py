"""Embed some rows of a store again, in the batches they were embedded in, and compare. Loads the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.model.device import device_name, pick_device, use_all_cores
from pipeline.model.encode import Encoder, fastest_encoder
from pipeline.model.load import load_model
from pipeline.pixels.to_device import decode_for
from pipeline.planning.batches import batches_of
from pipeline.store.layout import Store
from pipeline.store.parts import embeddings_of, read_part
from pipeline.store.records import CommitMarker, Shard, StoreRecord

MIN_COSINE = 0.9999


@dataclass
class Resample:
    """What came of it: `num_equal` of `num_compared` rows are equal to the bit.

    `changed` tells of rows whose source is gone or has changed since, which says nothing of the store.
    """

    device: str
    num_compared: int = 0
    num_equal: int = 0
    min_cosine: float = 1.0
    changed: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def resample(
    store: Store, record: StoreRecord, whole: Mapping[int, CommitMarker], num_rows: int, seed: int
) -> Resample:
    """Embed ok rows again and compare.

    Args:
        store: The store.
        record: Its run.
        whole: Its shards that are whole, by ordinal.
        num_rows: How many rows, at most; drawn without replacement.
        seed: Decides which.

    Raises:
        InputError: If the model cannot be loaded, or is not the one that the store was made with.
    """
    use_all_cores(record.threads_per_worker)
    device = pick_device()
    source = record.encoder.source
    encoder = fastest_encoder(load_model(source, record.encoder.precision, device), record.encoder.policy)
    if encoder.spec.fingerprint != record.fingerprint:
        raise InputError(
            f"the model {source.model} is {encoder.spec.describe()} now, the store was made with "
            f"{record.encoder.describe()}; put the old weights back to resample"
        )
    result = Resample(device_name(device))
    chosen = _choose(whole, num_rows, seed)
    for shard in record.shards:
        if shard.ordinal in chosen:
            _compare(store, record, shard, whole[shard.ordinal], chosen[shard.ordinal], encoder, result)
    return result


def _choose(whole: Mapping[int, CommitMarker], num_rows: int, seed: int) -> dict[int, np.ndarray]:
    """Places among the ok rows of each shard that has any chosen."""
    ordinals = sorted(whole)
    ends = np.cumsum([whole[ordinal].num_ok for ordinal in ordinals])
    places = np.random.default_rng(seed).choice(ends[-1], min(num_rows, ends[-1]), replace=False)
    owners = np.searchsorted(ends, places, side="right")
    return {
        ordinals[owner]: np.sort(places[owners == owner]) - (ends[owner] - whole[ordinals[owner]].num_ok)
        for owner in np.unique(owners)
    }


def _compare(
    store: Store,
    record: StoreRecord,
    shard: Shard,
    stats: CommitMarker,
    places: np.ndarray,
    encoder: Encoder,
    result: Resample,
) -> None:
    table = read_part(store.part_of(stats), ["id", "key", "status", "sha256", "embedding"])
    table = table.filter(pc.equal(table["status"], "ok")).take(places)
    ids, stored_NE = embeddings_of(table)
    keys, digests = table["key"].to_pylist(), table["sha256"].to_pylist()
    number_of = {row: number for number, row in enumerate((ids - shard.first_id).tolist())}
    needed = {row // record.batch_size for row in number_of}
    encoder.micro_batch = stats.micro_batch
    try:
        for batch_number, batch in enumerate(batches_of(shard, record, store)):
            if batch_number in needed:
                pixels, records = decode_for(encoder, batch, record.max_pixels)
                embeddings_BE = encoder.encode(pixels)
                for slot, image in enumerate(records):
                    number = number_of.pop(batch_number * record.batch_size + slot, None)
                    if number is None:
                        continue
                    if image.sha256 != digests[number]:
                        reason = image.error or "its bytes are others now"
                        result.changed.append(f"{keys[number]!r}: {reason}")
                    elif image.status != "ok":
                        where = store.part_of(stats)
                        result.findings.append(
                            f"{where}: {keys[number]!r} is ok, but is {image.status} now ({image.error}); compare the "
                            "version of pillow with that in run.json"
                        )
                    else:
                        _judge(store, record, stats, keys[number], embeddings_BE[slot], stored_NE[number], result)
            if batch_number >= max(needed):
                break
        reason = "its source does not give it any more"
    except InputError as error:
        reason = str(error)
    result.changed += [f"{keys[number]!r}: {reason}" for number in number_of.values()]


def _judge(
    store: Store,
    record: StoreRecord,
    stats: CommitMarker,
    key: str,
    embedding_E: np.ndarray,
    stored_E: np.ndarray,
    result: Resample,
) -> None:
    cosine = float(embedding_E @ stored_E / np.linalg.norm(stored_E))
    written_E = embedding_E if record.encoder.precision == "fp32" else embedding_E.astype(np.float16)
    result.num_compared += 1
    result.num_equal += bool((written_E == stored_E).all())
    result.min_cosine = min(cosine, result.min_cosine)
    if not cosine >= MIN_COSINE:
        where, then = store.part_of(stats), record.environment.get("device", "an unknown device")
        result.findings.append(
            f"{where}: the embedding of {key!r} has cosine {cosine:.6f} to what its image now gives on "
            f"{result.device}, expected {MIN_COSINE}; it was made on {then}: compare on that device, with the versions "
            "of run.json"
        )
