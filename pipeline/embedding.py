"""`clipsieve embed`: everything from a source to committed shards."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pipeline.choices import (
    calibration_of,
    encoder_request,
    is_up_to_date,
    listed,
    record_of,
    refuse_other_choices,
)
from pipeline.durable.lock import store_lock
from pipeline.embed_report import EmbedReport, Run, write_report
from pipeline.errors import InputError
from pipeline.model.spec import local_files
from pipeline.monitor.events import Reporting
from pipeline.monitor.meter import Meter
from pipeline.monitor.progress import Progress, Tick
from pipeline.planning.changes import Changes
from pipeline.planning.extend import find_changes, write_changes
from pipeline.planning.shards import DEFAULT_SHARD_CAPACITY, shard_capacity
from pipeline.planning.tars import first_look, warn_of_kept_captions
from pipeline.settings.embed import EmbedSettings
from pipeline.source.listing import Listing
from pipeline.store.layout import Store
from pipeline.store.records import Shard
from pipeline.store.view import StoreView

if TYPE_CHECKING:
    from pipeline.workers.pool import WorkerPool


def embed(
    settings: EmbedSettings,
    on_tick: Callable[[Tick], None] = lambda tick: None,
    pool: "WorkerPool | None" = None,
    is_baseline: bool = False,
    on_warning: Callable[[str], None] = lambda text: None,
) -> EmbedReport:
    """Embed images from a source into a store. Resumes an unfinished store and adds images new to its source.

    Args:
        settings: What to embed, where to store it, and with which encoder.
        on_tick: Called about twice a second with the progress.
        pool: Workers to use, for callers that embed several times; their number and device are then the pool's. If
            None, a pool is started and stopped here, unless there is nothing to do.
        is_baseline: Run the unpruned model exactly as open_clip does, as a baseline for measurements.
        on_warning: Called before the workers start, with what looks wrong in the source.

    Raises:
        ClipsieveError: See `pipeline.errors`. Shards committed before the error stay committed.
    """
    listing = listed(settings)
    store = _prepared(settings)
    try:
        with store_lock(store.root), ExitStack() as stack:
            before = StoreView.now(store, store.read_record()) if store.record_path.exists() else None
            refuse_other_choices(settings, listing, before)
            calibration = calibration_of(settings, before)
            changes = find_changes(before, listing, **settings.comparison())
            warn_of_kept_captions(before, listing, changes.files, on_warning)
            if pool is None and not is_baseline and is_up_to_date(settings, before, changes):
                return _without_workers(settings, before, listing, changes)

            first_look(listing, on_warning)
            # Ray takes seconds to import and to start
            from pipeline.workers.dispatch import run_shards
            from pipeline.workers.pool import worker_pool

            reporting = stack.enter_context(
                Reporting(store.events_path, on_tick, settings.metrics_port, settings.wandb)
            )
            started, files = time.perf_counter(), local_files(settings.model_source())
            pool = pool or stack.enter_context(worker_pool(settings, settings.min_workers))
            pool.load(encoder_request(settings, before and before.record, listing, calibration, is_baseline))
            view = _plan(settings, store, listing, changes, pool)
            todo = view.missing
            if not is_baseline:
                pool.compile_towers(settings.compile_tower, _most_images(todo))
            start_s = time.perf_counter() - started
            reporting.event("run_started", num_shards=len(todo), start_s=round(start_s, 3), **pool.resources)
            meter = Meter(view, reporting.tick, settings.max_bad_fraction)
            progress = run_shards(pool, todo, view.record, store.root, meter, reporting.event)
            run = Run(progress, pool.report, pool.resources, files, start_s, time.perf_counter() - meter.started)
            store.sweep()
            meter.check_failures(progress, is_over=True)
            report = write_report(EmbedReport.of(view, listing, changes, settings, run), reporting)
    finally:
        store.remove_if_empty()
    _refuse_damaged(progress, len(todo))
    return report


def _prepared(settings: EmbedSettings) -> Store:
    store = Store(settings.out)
    if settings.retry:
        store.read_record()  # without a store nothing has failed yet, and the name may be mistyped
    store.create_folders()
    return store


def _plan(settings: EmbedSettings, store: Store, listing: Listing, changes: Changes, pool: "WorkerPool") -> StoreView:
    """Create the store, or check that its encoder is the one that was loaded, and plan what is to be embedded."""
    capacity = settings.shard_size or shard_capacity(listing.num_images, pool.num_workers)
    calibration = pool.report.calibration
    record = store.begin(record_of(settings, listing, pool.report, capacity), calibration and calibration.data)
    # a store created with few images has small shards; new shards need not be as small
    capacity = settings.shard_size or max(record.shard_capacity, capacity)
    return write_changes(StoreView.now(store, record), listing, changes, capacity, settings.max_pixels)


def _most_images(shards: Sequence[Shard]) -> int:
    return sum(shard.num_images or DEFAULT_SHARD_CAPACITY for shard in shards)


def _without_workers(settings: EmbedSettings, view: StoreView, listing: Listing, changes: Changes) -> EmbedReport:
    """End a run that embeds nothing as one that embeds something ends."""
    view.store.sweep()
    Meter(view, lambda tick: None, settings.max_bad_fraction).check_failures(Progress(), is_over=True)
    return write_report(EmbedReport.of(view, listing, changes, settings))


def _refuse_damaged(progress: Progress, num_shards: int) -> None:
    if progress.damaged:
        first = next(iter(progress.damaged.values()))
        raise InputError(
            f"{len(progress.damaged)} of {num_shards} shards could not be read, the others are committed; "
            f"first: {first}"
        )
