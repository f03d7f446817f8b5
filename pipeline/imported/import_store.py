"""`clipsieve import`: everything from embeddings that exist already to a store of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from pipeline import __version__
from pipeline.durable.lock import store_lock
from pipeline.durable.seal import write_sealed_json
from pipeline.errors import ConfigError, FingerprintMismatch, StoreError
from pipeline.imported.claim import claimed_spec
from pipeline.imported.commit import import_shards
from pipeline.imported.files import Embeddings, find_embeddings
from pipeline.imported.shards import cut, refuse_repeated_keys
from pipeline.model.spec import spec_metadata
from pipeline.monitor.progress import Tick
from pipeline.planning.shards import DEFAULT_SHARD_CAPACITY
from pipeline.settings.imports import ImportSettings
from pipeline.source.left_out import LeftOut
from pipeline.store.layout import Store
from pipeline.store.records import CommitMarker, StoreRecord
from pipeline.store.tombstones import create_tombstones
from pipeline.store.view import StoreView


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What a store holds after an import. `num_imported` counts the rows of this run, the others those of the store."""

    view: StoreView
    num_images: int
    num_ok: int
    failed: dict[str, int]
    num_normalised: int
    num_imported: int
    left_out: LeftOut
    key_column: str | None
    """None if keys are file and row numbers, or lines of a list."""


def import_store(
    settings: ImportSettings,
    on_tick: Callable[[Tick], None] = lambda tick: None,
    on_warning: Callable[[str], None] = lambda text: None,
) -> ImportReport:
    """Make a store of embeddings that exist already, or finish one. Rows keep the order of the source.

    Args:
        settings: The embeddings, the store, and the model that is said to have made them.
        on_tick: Called after each shard with the progress.
        on_warning: Called before the import with what a user should know about the model.

    Raises:
        ClipsieveError: See `pipeline.errors`. Shards committed before the error stay committed.
    """
    found = find_embeddings(settings)
    store = Store(settings.out)
    store.create_folders()
    try:
        with store_lock(store.root):
            record = _begun(settings, store, found, on_warning)
            before = StoreView.now(store, _planned(store, record, found))
            store.sweep()
            new = import_shards(before, found, _Progress(before, on_tick))
            view = StoreView(store, before.record, before.committed | new)
            report = _report(view, found, new)
            _write_summary(report)
    finally:
        store.remove_if_empty()
    return report


def _begun(settings: ImportSettings, store: Store, found: Embeddings, on_warning: Callable[[str], None]) -> StoreRecord:
    """The record of the store: its own if it exists, else a new one, after the keys have been compared."""
    if store.record_path.exists():
        record = store.read_record()
        _refuse_other_choices(settings, record, found, store)
        return record
    spec = claimed_spec(found, settings.model_source(), on_warning)
    refuse_repeated_keys(found)
    return store.begin(
        StoreRecord(
            clipsieve_version=__version__,
            **spec_metadata(spec),
            columns=found.source.columns,
            shard_capacity=settings.shard_size or DEFAULT_SHARD_CAPACITY,
            batch_size=0,
            max_pixels=0,
            threads_per_worker=0,
            environment={name: version(name) for name in ("pyarrow", "numpy")},
        )
    )


def _refuse_other_choices(settings: ImportSettings, record: StoreRecord, found: Embeddings, store: Store) -> None:
    if not record.is_imported:
        raise FingerprintMismatch(
            f"the store {store.root} holds images that `clipsieve embed` embedded with {record.encoder.describe()}, "
            "and nobody knows whether imported embeddings are of the same encoder; choose another --out"
        )
    spec = record.encoder
    asked = (settings.model_source(), found.dim, "fp16" if found.is_half else "fp32")
    if asked != (spec.source, spec.embedding_dim, spec.precision):
        raise FingerprintMismatch(
            f"the store {store.root} holds imported embeddings of {spec.describe()}, {spec.embedding_dim} values each, "
            f"but this import is of {asked[0].model}, {asked[1]} values each in {asked[2]}; choose another --out"
        )
    store.check_columns(found.source.columns, record)
    if settings.shard_size not in (None, record.shard_capacity):
        raise ConfigError(
            f"the store was created with --shard-size {record.shard_capacity}, but this run asks for "
            f"{settings.shard_size}; pass the original value to finish it"
        )


def _planned(store: Store, record: StoreRecord, found: Embeddings) -> StoreRecord:
    """The record with its plan, which is written before any part and must be what the source gives again."""
    shards = tuple(cut(found, record.shard_capacity))
    if not record.plans:
        create_tombstones(store)
        return store.add_plan(record, found.source, ((shard, None) for shard in shards))
    if [shard.shard_id for shard in shards] != [shard.shard_id for shard in record.shards]:
        raise StoreError(
            f"{found.source.location} is not what the store {store.root} was made of, or its files (size, time) or "
            "columns have changed; restore it to finish that store, or choose another --out"
        )
    return record


class _Progress:
    """Turns commits into ticks."""

    def __init__(self, view: StoreView, on_tick: Callable[[Tick], None]) -> None:
        self._on_tick, self._total = on_tick, view.record.num_images
        self._num_done = sum(marker.num_images for marker in view.committed.values())
        self._num_failed = sum(sum(marker.failed.values()) for marker in view.committed.values())
        self._num_before, self._started = self._num_done, time.perf_counter()

    def __call__(self, marker: CommitMarker) -> None:
        self._num_done += marker.num_images
        self._num_failed += sum(marker.failed.values())
        rate = (self._num_done - self._num_before) / (time.perf_counter() - self._started)
        self._on_tick(Tick(self._num_done, self._total, self._num_failed, rate))


def _report(view: StoreView, found: Embeddings, new: dict[int, CommitMarker]) -> ImportReport:
    counts = view.counts
    return ImportReport(
        view=view,
        num_images=counts.num_images,
        num_ok=counts.num_ok,
        failed=counts.failed,
        num_normalised=sum(marker.num_normalised for marker in view.committed.values()),
        num_imported=sum(marker.num_images for marker in new.values()),
        left_out=found.left_out,
        key_column=found.source.key_column,
    )


def _write_summary(report: ImportReport) -> None:
    counts = {name: getattr(report, name) for name in ("num_images", "num_ok", "failed", "num_normalised")}
    store = report.view.store
    if report.num_imported or not store.summary_path.exists():
        write_sealed_json(store.summary_path, {"store": {**counts, "left_out": report.left_out.model_dump()}})
