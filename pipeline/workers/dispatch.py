"""The shards of one run: hand them out to workers, take what comes back, survive what dies."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from pipeline.errors import InputError, WorkerError, first_line
from pipeline.monitor.progress import Progress
from pipeline.store.records import Shard
from pipeline.workers.session import LIVENESS_S, WORKERS_GONE_S, get, refuse_dead_node

MAX_SHARD_ATTEMPTS = 3
MAX_DAMAGED_SHARDS = 10
"""Shards whose source cannot be read, after which it is the source that is broken and not some of its files."""


STRAGGLER_FACTOR = 3.0
UNRESPONSIVE_S = 120.0
"""A worker that does not answer for so long is taken for dead; it may stand still, and hold what others wait for."""

POLL_S = 0.5


class Run:
    """Shards waiting, under way and done; `pool` is a `ray_pool.WorkerPool`."""

    def __init__(
        self, pool: Any, shards: Sequence[Shard], record: Any, root: Path, on_event: Callable[..., None]
    ) -> None:
        """Nothing is handed out yet; `record` is a `StoreRecord` in Ray's object store."""
        self.queue = deque(shards)
        self.idle = deque(pool.ready_workers())
        self.busy: dict[Any, tuple[Any, Shard, float]] = {}
        self.progress = Progress()
        self._pool, self._record, self._root, self._on_event = pool, record, root, on_event
        self._attempts: dict[int, int] = {}
        self._seconds: list[float] = []
        self._answered: dict[Any, float] = {}  # when a worker last said how far it is, by what it is busy with
        self._alone_since: float | None = None
        self._looked = time.monotonic()

    def hand_out(self) -> None:
        """Give idle workers something to do, and those that are not needed any more their end."""
        while self.queue and self.idle:
            shard = self.queue.popleft()
            self._attempts[shard.ordinal] = self._attempts.get(shard.ordinal, 0) + 1
            self._give(shard)
        if not self.queue:
            self._help_stragglers()
            self._pool.release_joining()
            self.idle = deque(worker for worker in self.idle if not self._pool.release(worker))
        self._refuse_to_wait_forever()

    def wait(self, refs: list[Any]) -> list[Any]:
        """What of all that is under way has ended, if anything did within half a second."""
        if time.monotonic() - self._looked > LIVENESS_S:
            refuse_dead_node()
            self._looked = time.monotonic()
        return ray.wait(refs, timeout=POLL_S)[0]

    def take(self, ref: Any) -> None:
        """Take back what became of a shard."""
        worker, shard, started = self.busy.pop(ref)
        self._answered.pop(ref, None)
        twins = [other for other, (_, same, _) in self.busy.items() if same.ordinal == shard.ordinal]
        try:
            stats = get(ref)
        except InputError as error:
            self._set_aside(shard, error)
        except ray.exceptions.RayError as error:
            self._handle_lost_worker(worker, shard, error)
            return
        else:
            self.progress.finished.append(stats)
            self._seconds.append(time.monotonic() - started)
            self._on_event("shard_committed", shard=shard.ordinal, num_images=stats.num_images, host=stats.host)
        for other in twins:  # it would write the same bytes, later
            self._pool.replace(self.busy.pop(other)[0])
        self.idle.append(worker)

    def tick(self, on_tick: Callable[[Progress], None]) -> None:
        """Ask the busy workers how far they are, and tell."""
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
                pass  # what it was busy with says so too
        self.progress.num_under_way = sum(num_images for num_images, _ in counts.values())
        self.progress.num_failed_under_way = sum(num_failed for _, num_failed in counts.values())
        on_tick(self.progress)

    def _give(self, shard: Shard) -> None:
        worker = self.idle.popleft()
        self.busy[worker.embed_shard.remote(shard, self._record, self._root)] = (worker, shard, time.monotonic())
        self.progress.num_workers = max(self.progress.num_workers, len(self.busy))

    def _help_stragglers(self) -> None:
        # a worker may be slow for reasons of its own, a sick node or disk: the first to finish counts
        if not self.idle or len(self._seconds) < 3:
            return
        limit_s = STRAGGLER_FACTOR * statistics.median(self._seconds)
        under_way = [shard.ordinal for _, shard, _ in self.busy.values()]
        for _, shard, started in list(self.busy.values()):
            if self.idle and under_way.count(shard.ordinal) == 1 and time.monotonic() - started > limit_s:
                self._on_event("straggler_run_again", shard=shard.ordinal)
                self._give(shard)

    def _handle_lost_worker(self, worker: Any, shard: Shard, error: Exception) -> None:
        self._on_event("worker_lost", shard=shard.ordinal, reason=first_line(error))
        if all(other.ordinal != shard.ordinal for _, other, _ in self.busy.values()):
            self._try_again(shard, error)
        self._pool.replace(worker)

    def _try_again(self, shard: Shard, error: Exception) -> None:
        if self._attempts[shard.ordinal] >= MAX_SHARD_ATTEMPTS:
            raise WorkerError(
                f"shard {shard.ordinal} ended its worker {MAX_SHARD_ATTEMPTS} times "
                f"({first_line(error)}); what is committed stays, run embed again to go on"
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
                f"no worker could be started for {WORKERS_GONE_S:.0f} s; look at `ray status`, then run embed again"
            )
