"""Dispatch the shards of one run: hand them to workers, collect commit markers, recover from lost workers."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from pipeline.errors import InputError, WorkerError
from pipeline.monitor.progress import Progress
from pipeline.planning.batches import credentials_of
from pipeline.store.layout import Store
from pipeline.store.records import Shard, StoreRecord
from pipeline.workers.causes import cause_of
from pipeline.workers.pool import WorkerPool
from pipeline.workers.session import LIVENESS_S, WORKERS_GONE_S, get, logs, refuse_dead_node

MAX_SHARD_ATTEMPTS = 3
MAX_DAMAGED_SHARDS = 10
"""If more shards than this cannot be read, the whole source is broken, not just some of its files."""

STRAGGLER_FACTOR = 3.0
UNRESPONSIVE_S = 120.0
"""A worker that does not answer for this long is treated as dead: a stuck worker may hold resources."""

POLL_S = 0.5


def run_shards(
    pool: WorkerPool,
    shards: Sequence[Shard],
    record: StoreRecord,
    root: Path,
    on_progress: Callable[[Progress], None],
    on_event: Callable[..., None] = lambda event, **details: None,
) -> Progress:
    """Embed and commit every shard, using the workers of a pool.

    Args:
        pool: Workers that have loaded the model.
        shards: The shards to embed.
        record: The store's record, passed on to the workers.
        root: The store, on a file system that all workers can access.
        on_progress: Called about twice per second.
        on_event: Called for commits, losses and stragglers with an event name and keyword details.

    Returns:
        The finished shards, and those set aside because their source cannot be read.

    Raises:
        WorkerError: If a shard failed `MAX_SHARD_ATTEMPTS` times, or no worker is left.
        ClipsieveError: Any error that a worker raised for the user, unchanged. This includes an unreadable source
            once more than `MAX_DAMAGED_SHARDS` shards are set aside.
    """
    run = _Run(pool, shards, record=record, root=root, on_event=on_event)
    while run.queue or run.busy:
        run.hand_out()
        for ref in run.wait():
            run.take(ref)
        run.report(on_progress)
    return run.progress


class _Run:
    """The state of a run: shards that are waiting, in progress and done."""

    def __init__(
        self,
        pool: WorkerPool,
        shards: Sequence[Shard],
        *,
        record: StoreRecord,
        root: Path,
        on_event: Callable[..., None],
    ) -> None:
        """Prepare a run without starting any shard."""
        self.queue = deque(shards)
        self.idle = deque(pool.ready_workers())
        self.busy: dict[Any, tuple[Any, Shard, float]] = {}
        self.progress = Progress()
        self._pool, self._record, self._store, self._on_event = pool, record, Store(root), on_event
        self._shared_record = ray.put(record)
        self._attempts: dict[int, int] = {}
        self._seconds: list[float] = []
        self._answered: dict[Any, float] = {}  # when a worker last reported progress, by task ref
        self._alone_since: float | None = None
        self._looked = time.monotonic()

    def hand_out(self) -> None:
        """Give shards to idle workers, and release workers that are no longer needed."""
        while self.queue and self.idle:
            shard = self.queue.popleft()
            self._attempts[shard.ordinal] = self._attempts.get(shard.ordinal, 0) + 1
            self._give(shard)
        if not self.queue:
            self._help_stragglers()
            self._pool.release_joining()
            self.idle = deque(worker for worker in self.idle if not self._pool.release(worker))
        self._refuse_to_wait_forever()

    def wait(self) -> list[Any]:
        """Wait up to half a second, and return the refs of work that has finished."""
        if time.monotonic() - self._looked > LIVENESS_S:
            refuse_dead_node()
            self._looked = time.monotonic()
        return ray.wait([*self.busy, *self._pool.joining], timeout=POLL_S)[0]

    def take(self, ref: Any) -> None:
        """Handle finished work: a worker that has loaded the model, or a shard."""
        if ref in self._pool.joining:
            self.idle += self._pool.accept_worker(ref, self._on_event)
        else:
            self._take_shard(ref)

    def report(self, on_progress: Callable[[Progress], None]) -> None:
        """Ask the busy workers for their progress, and report it."""
        counts = {}
        for ref, (worker, shard, started) in list(self.busy.items()):
            try:
                done = ray.get(worker.images_done.remote(), timeout=POLL_S)
                counts[shard.ordinal] = max(counts.get(shard.ordinal, (0, 0)), done)
                self._answered[ref] = time.monotonic()
            except ray.exceptions.GetTimeoutError as error:
                if time.monotonic() - self._answered.get(ref, started) > UNRESPONSIVE_S:
                    del self.busy[ref]
                    self._handle_lost_worker(worker, shard, error)
            except ray.exceptions.RayError:
                pass  # the ref of its shard raises the same error
        self.progress.num_under_way = sum(num_images for num_images, _ in counts.values())
        self.progress.num_failed_under_way = sum(num_failed for _, num_failed in counts.values())
        on_progress(self.progress)

    def _take_shard(self, ref: Any) -> None:
        worker, shard, started = self.busy.pop(ref)
        self._answered.pop(ref, None)
        twins = [other for other, (_, same, _) in self.busy.items() if same.ordinal == shard.ordinal]
        try:
            marker = get(ref)
        except InputError as error:
            self._set_aside(shard, error)
        except ray.exceptions.RayError as error:
            self._handle_lost_worker(worker, shard, error)
            return
        else:
            self.progress.finished.append(marker)
            self._seconds.append(time.monotonic() - started)
            self._on_event("shard_committed", shard=shard.ordinal, num_images=marker.num_images, host=marker.host)
        for other in twins:  # they would only write the same bytes again, later
            self._pool.replace(self.busy.pop(other)[0])
        self.idle.append(worker)

    def _give(self, shard: Shard) -> None:
        worker = self.idle.popleft()
        credentials = credentials_of(shard, self._record, self._store)
        ref = worker.embed_shard.remote(shard, self._shared_record, self._store.root, credentials)
        self.busy[ref] = (worker, shard, time.monotonic())
        self.progress.num_workers = max(self.progress.num_workers, len(self.busy))

    def _help_stragglers(self) -> None:
        # a worker may be slow because of a bad node or disk: run the shard twice, the first to finish wins
        if not self.idle or len(self._seconds) < 3:
            return
        limit_s = STRAGGLER_FACTOR * statistics.median(self._seconds)
        under_way = [shard.ordinal for _, shard, _ in self.busy.values()]
        for _, shard, started in list(self.busy.values()):
            if self.idle and under_way.count(shard.ordinal) == 1 and time.monotonic() - started > limit_s:
                self._on_event("straggler_run_again", shard=shard.ordinal)
                self._give(shard)

    def _handle_lost_worker(self, worker: Any, shard: Shard, error: Exception) -> None:
        self._on_event("worker_lost", shard=shard.ordinal, reason=cause_of(error))
        if all(other.ordinal != shard.ordinal for _, other, _ in self.busy.values()):
            self._try_again(shard, error)
        self._pool.replace(worker)

    def _try_again(self, shard: Shard, error: Exception) -> None:
        if self._attempts[shard.ordinal] >= MAX_SHARD_ATTEMPTS:
            raise WorkerError(
                f"shard {shard.ordinal} crashed its worker {MAX_SHARD_ATTEMPTS} times ({cause_of(error)}); committed "
                "shards are safe: run the same command to resume"
            ) from error
        self.queue.appendleft(shard)

    def _set_aside(self, shard: Shard, error: InputError) -> None:
        self._on_event("shard_failed", shard=shard.ordinal, reason=str(error))
        self.progress.damaged[shard.ordinal] = str(error)
        if len(self.progress.damaged) > MAX_DAMAGED_SHARDS:
            raise error

    def _refuse_to_wait_forever(self) -> None:
        if self.busy or self.idle:
            self._alone_since = None
            return
        self._alone_since = self._alone_since or time.monotonic()
        if time.monotonic() - self._alone_since > WORKERS_GONE_S:
            raise WorkerError(
                f"no worker could be started for {WORKERS_GONE_S:.0f} s; {logs()}, then run the same command to resume"
            )
