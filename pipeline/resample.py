"""Embed some rows of a store again, in their original batches, and compare. Loads the model."""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.model.calibrate import with_packed
from pipeline.model.device import device_name, pick_device, use_all_cores
from pipeline.model.encode import Encoder, fastest_encoder
from pipeline.model.load import load_model, with_policy
from pipeline.model.spec import DeviceChoice
from pipeline.monitor.progress import Tick
from pipeline.pixels.to_device import decode_for
from pipeline.planning.batches import batches_of
from pipeline.source.entry import ImageResult, Status
from pipeline.source.secrets import NEEDS_FRESH_LINKS
from pipeline.store.calibration import read_stored_calibration
from pipeline.store.parts import embeddings_of, read_part
from pipeline.store.records import Shard
from pipeline.store.view import StoreView

MIN_COSINE = 0.9999


@dataclass
class Resample:
    """Result of a comparison: `num_equal` of `num_compared` rows are bit-identical.

    `min_cosine` is None if no row was compared. `changed` lists rows whose source is gone or has changed. That says
    nothing about the store.
    """

    device: str
    num_compared: int = 0
    num_equal: int = 0
    min_cosine: float | None = None
    changed: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def resample(
    view: StoreView,
    num_rows: int,
    seed: int,
    device: DeviceChoice = "auto",
    on_tick: Callable[[str, Tick], None] = lambda name, tick: None,
) -> Resample:
    """Embed ok rows again and compare them with the stored ones.

    Args:
        view: The store, with only its whole shards as committed.
        num_rows: Maximum number of rows, drawn without replacement.
        seed: Seed of the draw.
        device: Where to embed them.
        on_tick: Called after each row with the progress.

    Raises:
        InputError: If the model cannot be loaded, or is not the one that the store was made with.
        StoreError: If the calibration of the store is missing or was changed.
        ConfigError: If the device is not available.
    """
    record = view.record
    use_all_cores(record.threads_per_worker)
    on = pick_device(device)
    calibration = read_stored_calibration(view.store.calibration_path, record.encoder)
    source, policy = record.encoder.source, record.encoder.policy
    loaded = load_model(source, record.encoder.precision, on, kernels=record.kernels)
    loaded = with_packed(loaded, calibration)
    found = with_policy(loaded.spec, policy)
    if found.fingerprint != record.fingerprint:
        raise InputError(
            f"the model {source.model} is now {found.describe()}, but the store was made with "
            f"{record.encoder.describe()}; restore the original weights to resample"
        )
    encoder = fastest_encoder(loaded, policy)
    result = Resample(device_name(on))
    chosen = _choose(view, num_rows, seed)
    num_chosen, started = sum(map(len, chosen.values())), time.perf_counter()

    def report() -> None:
        num_done = result.num_compared + len(result.changed)
        rate = num_done / (time.perf_counter() - started)
        on_tick("embed again", Tick(num_done, num_chosen, len(result.changed), rate))

    for shard in record.shards:
        if shard.ordinal in chosen:
            _Comparison(view, shard, encoder, result).run(chosen[shard.ordinal], report)
    return result


def _choose(view: StoreView, num_rows: int, seed: int) -> dict[int, np.ndarray]:
    """Positions of the chosen rows among the ok rows of each shard, by ordinal."""
    ordinals = sorted(view.committed)
    counts = [view.committed[ordinal].num_ok for ordinal in ordinals]
    ends = np.cumsum(counts)
    places = np.random.default_rng(seed).choice(ends[-1], min(num_rows, ends[-1]), replace=False)
    owners = np.searchsorted(ends, places, side="right")
    return {
        ordinals[owner]: np.sort(places[owners == owner]) - (ends[owner] - counts[owner]) for owner in np.unique(owners)
    }


class _Comparison:
    """Compares some rows of one shard with new embeddings of their images."""

    def __init__(self, view: StoreView, shard: Shard, encoder: Encoder, result: Resample) -> None:
        self._store, self._record, self._shard = view.store, view.record, shard
        self._marker = view.committed[shard.ordinal]
        self._path = self._store.part_of(self._marker)
        self._encoder, self._result = encoder, result

    def run(self, places: np.ndarray, report: Callable[[], None]) -> None:
        """Compare the ok rows at these positions among the ok rows. Calls `report` after each."""
        rows = read_part(self._path, ["id", "key", "status", "sha256", "embedding"])
        table = rows.filter(pc.equal(rows["status"], Status.OK)).take(places)
        ids, stored_NE = embeddings_of(table)
        keys, digests = table["key"].to_pylist(), table["sha256"].to_pylist()
        names = keys if self._shard.is_tar else (ids - self._shard.first_id).tolist()
        number_of = {name: number for number, name in enumerate(names)}
        self._encoder.micro_batch = self._marker.micro_batch
        try:
            for name, image, embedding_E in self._embedded_again(set(number_of), rows["key"].to_pylist()):
                number = number_of.pop(name)
                if image.sha256 != digests[number]:
                    reason = image.error or "its bytes have changed"
                    if image.sha256 is None and self._record.plan_of(self._shard).source.is_signed:
                        reason = f"{reason}; {NEEDS_FRESH_LINKS}"
                    self._result.changed.append(f"{keys[number]!r}: {reason}")
                elif not image.is_ok:
                    self._result.findings.append(
                        f"{self._path}: {keys[number]!r} is stored as ok, but is now {image.status} ({image.error}); "
                        "compare the installed version of pillow with the one in run.json"
                    )
                else:
                    self._judge(keys[number], embedding_E, stored_NE[number])
                report()
            reason = "its source no longer contains it"
        except InputError as error:
            reason = str(error).partition("; ")[0]  # what follows is advice for embedding
        self._result.changed += [f"{keys[number]!r}: {reason}" for number in number_of.values()]

    def _embedded_again(
        self, wanted: set[int | str], keys: Collection[str]
    ) -> Iterator[tuple[int | str, ImageResult, np.ndarray]]:
        """Yield (name, image result, embedding) for some images of the shard, encoded in their original batches.

        Images are named by their position in the shard, but those of tars by key: a store that was made before links
        in tars were read has no rows for them. `keys` are those of the shard's rows.
        """
        entries = chain.from_iterable(batches_of(self._shard, self._record, self._store))
        if self._shard.is_tar and not self._marker.num_removed:  # a removed row also had a place in its batch
            entries = filter(lambda entry, known=frozenset(keys): entry.key in known, entries)
        start = 0
        while wanted and (batch_entries := list(islice(entries, self._record.batch_size))):
            positions = range(start, start + len(batch_entries))
            names = [entry.key for entry in batch_entries] if self._shard.is_tar else positions
            places = [place for place, name in enumerate(names) if name in wanted]
            if places:
                batch = decode_for(self._encoder, batch_entries, self._record.max_pixels_of(self._shard))
                embeddings_BE = self._encoder.encode(batch.pixels)
                yield from ((names[place], batch.results[place], embeddings_BE[place]) for place in places)
            wanted = wanted.difference(names)
            start = positions.stop

    def _judge(self, key: str, embedding_E: np.ndarray, stored_E: np.ndarray) -> None:
        cosine = float(embedding_E @ stored_E / np.linalg.norm(stored_E))
        is_whole = self._record.encoder.precision == "fp32"
        written_E = embedding_E if is_whole else embedding_E.astype(np.float16)
        self._result.num_compared += 1
        self._result.num_equal += bool((written_E == stored_E).all())
        lowest = self._result.min_cosine
        self._result.min_cosine = cosine if lowest is None else min(cosine, lowest)
        if not cosine >= MIN_COSINE:
            then = self._record.environment.get("device", "an unknown device")
            self._result.findings.append(
                f"{self._path}: the embedding of {key!r} has cosine {cosine:.6f} with a new one made on "
                f"{self._result.device}, expected at least {MIN_COSINE}; the stored one was made on {then}: compare "
                "on that device, with the versions in run.json"
            )
