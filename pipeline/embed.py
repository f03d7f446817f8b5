"""`clipsieve embed`: everything from a source to committed shards."""

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress

from pipeline.choices import encoder_request, record_of, refuse_other_units
from pipeline.durable.lock import store_lock
from pipeline.embed_report import EmbedReport, left_out_of, summary_of, warnings_of, write_report
from pipeline.errors import InputError
from pipeline.monitor.events import Reporting
from pipeline.monitor.meter import Meter
from pipeline.monitor.progress import Tick
from pipeline.planning.extend import extend_plan
from pipeline.planning.shards import shard_capacity
from pipeline.settings.embed import EmbedSettings
from pipeline.source.listing import Listing, list_source
from pipeline.store.layout import Store
from pipeline.store.parts import refuse_taken_names
from pipeline.store.view import StoreView
from pipeline.workers.dispatch import run_shards
from pipeline.workers.pool import WorkerPool, worker_pool


def embed(
    settings: EmbedSettings,
    on_tick: Callable[[Tick], None] = lambda tick: None,
    pool: WorkerPool | None = None,
    is_baseline: bool = False,
) -> EmbedReport:
    """Embed images from a source into a store. Resumes an unfinished store and adds images new to its source.

    Args:
        settings: What to embed, where to store it, and with which encoder.
        on_tick: Called about twice a second with the progress.
        pool: Workers to use, for callers that embed several times; their number and device are then the pool's. If
            None, a pool is started and stopped here.
        is_baseline: Run the unpruned model exactly as open_clip does, as a baseline for measurements.

    Raises:
        ClipsieveError: See `pipeline.errors`. Shards committed before the error stay committed.
    """
    source = settings.image_source()
    refuse_taken_names(source.columns)
    listing = list_source(source, settings.captions)
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
            view = StoreView(store, view.record, view.committed | {m.ordinal: m for m in progress.finished})
            report = EmbedReport(
                view=view,
                left_out=left_out_of(listing, view),
                summary=summary_of(progress, view, pool.resources, elapsed_s),
                start_s=start_s,
                device=pool.report.device,
                warnings=warnings_of(pool.report, progress, settings.canary_floor),
            )
            write_report(report, reporting)
    finally:
        _remove_if_empty(store)
    if progress.damaged:
        first = next(iter(progress.damaged.values()))
        raise InputError(
            f"{len(progress.damaged)} of {len(todo)} shards could not be read, the others are committed; first: {first}"
        )
    return report


def _begin(settings: EmbedSettings, store: Store, listing: Listing, pool: WorkerPool, is_baseline: bool) -> StoreView:
    """Load the model, create or open the store, and plan new images."""
    existing = store.read_record() if store.record_path.exists() else None
    refuse_other_units(settings, existing)
    pool.load(encoder_request(settings, existing, is_baseline))
    capacity = settings.shard_size or shard_capacity(listing.num_images, pool.num_workers)
    record = record_of(settings, listing, pool.report, capacity, existing)
    view = StoreView.now(store, store.begin(record))
    # a store created with few images has small shards; new shards need not be as small
    capacity = settings.shard_size or max(view.record.shard_capacity, capacity)
    return extend_plan(view, listing, settings.on_change, settings.check_content, capacity)


def _remove_if_empty(store: Store) -> None:
    # a lock file belongs to another job that has yet to write run.json; the folders are that job's
    if not store.record_path.exists() and not (store.root / "lock.json").exists():
        with suppress(OSError):
            store.events_path.unlink(missing_ok=True)
            store.plan_dir.rmdir()
            store.embeddings_dir.rmdir()
            store.root.rmdir()
