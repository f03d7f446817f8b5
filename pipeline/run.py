"""`clipsieve embed`: the whole story from a folder to committed shards."""

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.lock import store_lock
from pipeline.plan import Shard, plan_shards, shard_capacity
from pipeline.progress import Tick
from pipeline.ray_backend import EncoderRequest, WorkerPool, worker_pool
from pipeline.schema import spec_metadata
from pipeline.settings import EmbedSettings
from pipeline.source import as_text, list_images, read_captions, with_captions
from pipeline.store import PlannedShard, RunRecord, ShardStats, Store


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """What became of a run; `num_embedded` counts images done by this run, the other counts are of the whole store."""

    store: Store
    record: RunRecord
    num_images: int
    num_ok: int
    failed: dict[str, int]
    num_ignored_files: int
    num_embedded: int
    images_per_second_end_to_end: float
    start_s: float
    device: str
    warning: str | None


def embed(
    settings: EmbedSettings, on_tick: Callable[[Tick], None] = lambda tick: None, pool: WorkerPool | None = None
) -> EmbedReport:
    """Embed a folder of images into a store; finish a store that was begun.

    Args:
        settings: What, where, and by which encoder.
        on_tick: Told about twice a second how far the run is.
        pool: Workers to use, for callers that embed several times; else they are started and ended here.

    Returns:
        The counts. `images_per_second_end_to_end` runs from the first shard handed out to the last one committed,
        with Ray and the model already started; `start_s` is what those took.

    Raises:
        ClipsieveError: See `pipeline.errors`; what was committed by then stays committed.
    """
    entries, num_ignored = list_images(settings.source)
    if settings.captions:
        entries = with_captions(entries, read_captions(settings.captions))
    store = Store(settings.out)
    store.create_folders()
    started = time.perf_counter()
    workers = nullcontext(pool) if pool else worker_pool(settings.ray_address, settings.workers)
    try:
        with store_lock(store.root), workers as pool:
            begun = store.read_run() if store.run_path.exists() else None
            _refuse_other_shards(settings, begun)
            pool.load(_request(settings, begun))
            capacity = _capacity(settings, len(entries), pool, begun)
            shards = plan_shards(entries, capacity)
            record = store.begin(_record(settings, shards, capacity, pool, begun))
            committed = store.committed(record)
            todo = [shard for shard in shards if shard.ordinal not in committed]
            meter = _Meter(record, list(committed.values()), on_tick)
            start_s = time.perf_counter() - started
            finished = pool.run(todo, record, store.root, meter)
            elapsed_s = time.perf_counter() - meter.started
    finally:
        _remove_if_empty(store)
    stats = [*committed.values(), *finished]
    num_embedded = sum(shard.num_images for shard in finished)
    return EmbedReport(
        store=store,
        record=record,
        num_images=sum(shard.num_images for shard in stats),
        num_ok=sum(shard.num_ok for shard in stats),
        failed=_sum_failed(stats),
        num_ignored_files=num_ignored,
        num_embedded=num_embedded,
        images_per_second_end_to_end=num_embedded / elapsed_s,
        start_s=start_s,
        device=pool.report.device,
        warning=pool.report.warning,
    )


def _request(settings: EmbedSettings, begun: RunRecord | None) -> EncoderRequest:
    # a store that was begun keeps the precision that its first workers chose
    precision = None if settings.precision == "auto" else settings.precision
    if precision is None and begun:
        precision = begun.encoder.precision
    # the order of sums, and so the last bits, depend on the number of threads
    threads = begun.threads_per_worker if begun else None
    return EncoderRequest(
        settings.model_source(),
        settings.pruning_policy(),
        precision,
        settings.max_pixels,
        threads,
        settings.policy_is_default,
    )


def _refuse_other_shards(settings: EmbedSettings, begun: RunRecord | None) -> None:
    if begun is None:
        return
    asked = (
        settings.shard_size or begun.shard_capacity,
        settings.batch_size or begun.batch_size,
        settings.max_pixels,
    )
    found = (begun.shard_capacity, begun.batch_size, begun.max_pixels)
    if asked != found:
        raise ConfigError(
            "the store was begun with --shard-size {} --batch-size {} --max-pixels {}, ".format(*found)
            + "asked for {}, {} and {}; give the same to finish it".format(*asked)
        )


def _capacity(settings: EmbedSettings, num_images: int, pool: WorkerPool, begun: RunRecord | None) -> int:
    if begun:
        return begun.shard_capacity
    return settings.shard_size or shard_capacity(num_images, pool.num_workers)


def _record(
    settings: EmbedSettings, shards: list[Shard], capacity: int, pool: WorkerPool, begun: RunRecord | None
) -> RunRecord:
    return RunRecord(
        clipsieve_version=__version__,
        source=as_text(settings.source.absolute()),
        **spec_metadata(pool.report.spec),
        shard_capacity=capacity,
        batch_size=begun.batch_size if begun else settings.batch_size or pool.report.batch_size,
        max_pixels=settings.max_pixels,
        threads_per_worker=pool.report.threads,
        shards=tuple(PlannedShard(ordinal=s.ordinal, shard_id=s.shard_id, num_images=len(s.entries)) for s in shards),
        environment={
            **pool.report.versions,
            **{name: version(name) for name in ("ray", "pyarrow", "pillow", "numpy")},
            "device": pool.report.device,
        },
    )


class _Meter:
    """Turns the pool's reports into ticks: what counts is images, not shards."""

    def __init__(self, record: RunRecord, committed: list[ShardStats], on_tick: Callable[[Tick], None]) -> None:
        self._committed = committed
        self._num_total = record.num_images
        self._on_tick = on_tick
        self.started = time.perf_counter()

    def __call__(self, num_under_way: int, finished: list[ShardStats]) -> None:
        num_new = num_under_way + sum(stats.num_images for stats in finished)
        self._on_tick(
            Tick(
                num_done=num_new + sum(stats.num_images for stats in self._committed),
                num_total=self._num_total,
                num_failed=sum(_sum_failed([*self._committed, *finished]).values()),
                images_per_second=num_new / (time.perf_counter() - self.started),
            )
        )


def _sum_failed(stats: list[ShardStats]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for shard in stats:
        for status, count in shard.failed.items():
            totals[status] = totals.get(status, 0) + count
    return totals


def _remove_if_empty(store: Store) -> None:
    # a lock is another job's, which has yet to write run.json: the folders are its own
    if not store.run_path.exists() and not (store.root / "lock.json").exists():
        with suppress(OSError):
            store.embeddings_dir.rmdir()
            store.root.rmdir()
