"""`clipsieve embed`: everything from a source to committed shards."""

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pipeline import __version__
from pipeline.durable.lock import store_lock
from pipeline.durable.seal import write_sealed_json
from pipeline.errors import ConfigError, InputError
from pipeline.model.spec import spec_metadata
from pipeline.monitor.bottleneck import summarize
from pipeline.monitor.events import Reporting
from pipeline.monitor.meter import Meter, sum_failed
from pipeline.monitor.progress import Progress, Tick
from pipeline.planning.extend import extend_plan
from pipeline.planning.shards import shard_capacity
from pipeline.planning.tars import check_tars, first_look
from pipeline.settings.embed import EmbedSettings
from pipeline.source.left_out import Kind, LeftOut
from pipeline.source.listing import Listing, list_source
from pipeline.store.layout import Store
from pipeline.store.parts import refuse_taken_names
from pipeline.store.records import CommitMarker, StoreRecord
from pipeline.store.view import StoreView
from pipeline.workers.dispatch import run_shards
from pipeline.workers.messages import EncoderRequest
from pipeline.workers.pool import WorkerPool, worker_pool


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReport:
    """What a run did. `num_embedded` counts the images of this run; the other counts cover the whole store."""

    view: StoreView
    """The store after the run."""

    left_out: LeftOut
    """What the source holds that became no row: found while listing, and in the files of the store's shards."""

    summary: dict[str, Any]
    """Where this run's time went; see `bottleneck.summarize`."""

    start_s: float
    device: str
    warnings: list[str]

    @property
    def store(self) -> Store:
        """The store."""
        return self.view.store

    @property
    def record(self) -> StoreRecord:
        """The store's record."""
        return self.view.record

    @property
    def markers(self) -> list[CommitMarker]:
        """The store's commit markers."""
        return list(self.view.committed.values())

    @property
    def num_images(self) -> int:
        """Number of rows, including failed ones."""
        return sum(marker.num_images for marker in self.markers)

    @property
    def num_ok(self) -> int:
        """Number of rows with an embedding."""
        return sum(marker.num_ok for marker in self.markers)

    @property
    def failed(self) -> dict[str, int]:
        """Number of rows without an embedding, by status."""
        return sum_failed(self.markers)

    @property
    def num_ignored_files(self) -> int:
        """Number of files without an image suffix."""
        return self.left_out.counts.get(Kind.OTHER_SUFFIX, 0)

    @property
    def num_embedded(self) -> int:
        """Number of images that this run embedded."""
        return self.summary["num_images"]

    @property
    def images_per_second_end_to_end(self) -> float | None:
        """Rate from the first shard handed out to the last one committed. Ray and model start-up are not counted."""
        return self.summary["images_per_second"]["end_to_end"] if self.num_embedded else None


def embed(
    settings: EmbedSettings,
    on_tick: Callable[[Tick], None] = lambda tick: None,
    pool: WorkerPool | None = None,
    is_baseline: bool = False,
    on_warning: Callable[[str], None] = lambda text: None,
) -> EmbedReport:
    """Embed images from a source into a store. Resumes an unfinished store and adds images new to its source.

    Args:
        settings: What to embed, where to store it, and with which encoder.
        on_tick: Called about twice a second with the progress.
        pool: Workers to use, for callers that embed several times; their number and device are then the pool's. If
            None, a pool is started and stopped here.
        is_baseline: Run the unpruned model exactly as open_clip does, as a baseline for measurements.
        on_warning: Called before the workers start, with what looks wrong in the source.

    Raises:
        ClipsieveError: See `pipeline.errors`. Shards committed before the error stay committed.
    """
    source = settings.image_source()
    refuse_taken_names(source.columns)
    listing = list_source(source, settings.captions)
    first_look(listing, on_warning)
    store = Store(settings.out)
    store.create_folders()
    started = time.perf_counter()
    workers = nullcontext(pool) if pool else worker_pool(settings, settings.min_workers)
    try:
        with (
            store_lock(store.root),
            Reporting(store.events_path, on_tick, settings.metrics_port, settings.wandb) as reporting,
            workers as pool,
        ):
            view = _begin(settings, store, listing, pool, is_baseline)
            todo, start_s = view.missing, time.perf_counter() - started
            reporting.event("run_started", num_shards=len(todo), start_s=round(start_s, 3), **pool.resources)
            meter = Meter(view, reporting.tick, settings.max_bad_fraction)
            progress = run_shards(pool, todo, view.record, store.root, meter, reporting.event)
            elapsed_s = time.perf_counter() - meter.started
            store.sweep()
            meter.check_failures(progress, is_over=True)
            report = EmbedReport(
                view=StoreView(store, view.record, view.committed | {m.ordinal: m for m in progress.finished}),
                left_out=_left_out(listing, view, progress),
                summary=_summary(view.record, progress, pool, elapsed_s),
                start_s=start_s,
                device=pool.report.device,
                warnings=_warnings(pool, progress, settings.canary_floor),
            )
            _write_summary(report, reporting)
    finally:
        _remove_if_empty(store)
    if progress.damaged:
        first = next(iter(progress.damaged.values()))
        raise InputError(
            f"{len(progress.damaged)} of {len(todo)} shards could not be read, the others are committed; first: {first}"
        )
    check_tars(report.view, listing)
    return report


def _begin(settings: EmbedSettings, store: Store, listing: Listing, pool: WorkerPool, is_baseline: bool) -> StoreView:
    """Load the model, create or open the store, and plan new images."""
    existing = store.read_record() if store.record_path.exists() else None
    _refuse_other_units(settings, existing)
    pool.load(encoder_request(settings, existing, is_baseline))
    view = StoreView.now(store, store.begin(_record(settings, listing, pool, existing)))
    # a store created with few images has small shards; new shards need not be as small
    usual = max(view.record.shard_capacity, shard_capacity(listing.num_images, pool.num_workers))
    capacity = settings.shard_size or usual
    return extend_plan(view, listing, settings.on_change, settings.check_content, capacity)


def encoder_request(settings: EmbedSettings, existing: StoreRecord | None, is_baseline: bool) -> EncoderRequest:
    """What the workers must load. An existing store keeps the choices of its first run."""
    precision = None if settings.precision == "auto" else settings.precision
    if precision is None and existing:
        precision = existing.encoder.precision
    return EncoderRequest(
        source=settings.model_source(),
        policy=settings.pruning_policy(),
        precision=precision,
        max_pixels=settings.max_pixels,
        # the order of summation, and so the last bits, depends on the number of threads
        threads=existing.threads_per_worker if existing else None,
        batch_size=existing.batch_size if existing else settings.batch_size,
        policy_is_default=settings.policy_is_default,
        image_timeout_s=settings.image_timeout,
        canary=settings.canary,
        is_baseline=is_baseline,
    )


def _refuse_other_units(settings: EmbedSettings, existing: StoreRecord | None) -> None:
    if existing is None:
        return
    asked = (
        settings.shard_size or existing.shard_capacity,
        settings.batch_size or existing.batch_size,
        settings.max_pixels,
    )
    found = (existing.shard_capacity, existing.batch_size, existing.max_pixels)
    if asked != found:
        raise ConfigError(
            "the store was created with --shard-size {} --batch-size {} --max-pixels {}, ".format(*found)
            + "but this run asks for {}, {} and {}; pass the original values to finish it".format(*asked)
        )


def _record(settings: EmbedSettings, listing: Listing, pool: WorkerPool, existing: StoreRecord | None) -> StoreRecord:
    capacity = settings.shard_size or shard_capacity(listing.num_images, pool.num_workers)
    return StoreRecord(
        clipsieve_version=__version__,
        **spec_metadata(pool.report.spec),
        columns=listing.source.columns,
        shard_capacity=existing.shard_capacity if existing else capacity,
        batch_size=existing.batch_size if existing else pool.report.batch_size,
        max_pixels=settings.max_pixels,
        threads_per_worker=pool.report.threads,
        environment={
            **pool.report.versions,
            **{name: version(name) for name in ("ray", "pyarrow", "pillow", "numpy")},
            "device": pool.report.device,
        },
    )


def _summary(record: StoreRecord, progress: Progress, pool: WorkerPool, elapsed_s: float) -> dict[str, Any]:
    cpus, gpus = pool.resources["cpus"], pool.resources["gpus"]
    has_policy = record.encoder.policy is not None
    return summarize(progress.finished, elapsed_s, progress.num_workers, cpus, gpus, has_policy)


def _left_out(listing: Listing, view: StoreView, progress: Progress) -> LeftOut:
    left_out = LeftOut()
    for part in (listing, *view.committed.values(), *progress.finished):
        left_out.add_all(part.left_out)
    return left_out


def _warnings(pool: WorkerPool, progress: Progress, canary_floor: float) -> list[str]:
    warnings = [pool.report.warning] if pool.report.warning else []
    low = [marker for marker in progress.finished if marker.canary and marker.canary["median"] < canary_floor]
    if low:
        worst = min(low, key=lambda marker: marker.canary["median"])
        warnings.append(
            f"the median cosine between pruned and unpruned embeddings is below {canary_floor} in {len(low)} shards, "
            f"lowest in shard {worst.ordinal} ({worst.canary['median']:.3f}); check its images, or use a milder policy"
        )
    return warnings


def _write_summary(report: EmbedReport, reporting: Reporting) -> None:
    if not report.num_embedded:
        return
    for warning in report.warnings:
        reporting.event("warning", text=warning)
    totals = {
        "num_images": report.num_images,
        "num_ok": report.num_ok,
        "failed": report.failed,
        "left_out": report.left_out.model_dump(),
    }
    last_run = {**report.summary, "start_s": report.start_s, "device": report.device, "warnings": report.warnings}
    write_sealed_json(report.store.summary_path, {"store": totals, "last_run": last_run})
    reporting.event("run_finished", num_images=report.num_embedded, elapsed_s=round(report.summary["elapsed_s"], 3))


def _remove_if_empty(store: Store) -> None:
    # a lock file belongs to another job that has yet to write run.json; the folders are that job's
    if not store.record_path.exists() and not (store.root / "lock.json").exists():
        with suppress(OSError):
            store.events_path.unlink(missing_ok=True)
            store.plan_dir.rmdir()
            store.embeddings_dir.rmdir()
            store.root.rmdir()
