"""The driver's side of a run: start encode workers, hand out shards, take what comes back, survive what dies."""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray

from pipeline import __version__
from pipeline.cores import cpus_reserved, threads_that_fit
from pipeline.errors import ConfigError, InputError, WorkerError
from pipeline.plan import Shard
from pipeline.provenance import code_sha256
from pipeline.ray_session import LIVENESS_S, get, ray_session, refuse_dead_node, wait
from pipeline.ray_worker import EncoderRequest, EncodeWorker, WorkerIdentity, WorkerReport, batches_ahead
from pipeline.records import RunRecord, ShardStats

MAX_SHARD_ATTEMPTS = 3
MAX_LOAD_ATTEMPTS = 3
MAX_DAMAGED_SHARDS = 10
"""Shards whose source cannot be read, after which it is the source that is broken and not some of its files."""

WORKERS_GONE_S = 600.0
"""How long a run without any worker waits for one."""

STRAGGLER_FACTOR = 3.0
UNRESPONSIVE_S = 120.0
"""A worker that does not answer for so long is taken for dead; it may stand still, and hold what others wait for."""

POLL_S = 0.5


@dataclass
class Progress:
    """How far a run is: images done and failed in shards under way, and what finished."""

    num_workers: int = 0
    """Most that were busy at a time."""

    num_under_way: int = 0
    num_failed_under_way: int = 0
    finished: list[ShardStats] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)
    """Why shards were set aside, by ordinal: their source cannot be read."""


@contextmanager
def worker_pool(address: str | None, num_workers: int | None, min_workers: int | None = None) -> Iterator["WorkerPool"]:
    """A Ray session with encode workers, all ended with the block."""
    with ray_session(address):
        pool = WorkerPool(num_workers, min_workers)
        try:
            yield pool
        finally:
            pool.stop()


class WorkerPool:
    """Encode workers, one per GPU of the cluster, else one per CPU core; of use once a model is loaded."""

    report: WorkerReport
    """What the workers loaded last."""

    def __init__(self, num_workers: int | None, min_workers: int | None = None) -> None:
        """Start the workers.

        Args:
            num_workers: The most there shall be; those that find no room yet wait for the cluster to grow.
            min_workers: How many must be there to begin; all unless given.

        Raises:
            ConfigError: If the workers to begin with are more than there are cores.
        """
        resources = ray.cluster_resources()
        self._num_gpus = int(resources.get("GPU", 0))
        self._num_cpus = int(resources.get("CPU", 1))
        count = num_workers or self._num_gpus or self._num_cpus
        self._min = min(min_workers or count, count)
        if not self._num_gpus and self._min > self._num_cpus:
            # Ray would wait for more cores without a word
            raise ConfigError(
                f"workers = {self._min}: there are {self._num_cpus} CPU cores and no GPU; give at most {self._num_cpus}"
            )
        present = min(count, self._num_gpus or self._num_cpus) if min_workers else count
        self._threads = 1 if self._num_gpus else threads_that_fit(present, _cores_of_nodes())
        encode_cpus, self._decode_cpus = cpus_reserved(self._num_cpus, count, self._threads)
        self._options = {"num_cpus": encode_cpus}
        if self._num_gpus:
            self._options, self._decode_cpus = {"num_gpus": 1 / math.ceil(present / self._num_gpus), "num_cpus": 0}, 1.0
        self._workers = [self._start() for _ in range(count)]
        self._joining: dict[Any, Any] = {}
        self._request: EncoderRequest | None = None
        self._weights: Any = None

    def load(self, request: EncoderRequest) -> None:
        """Have the workers load a model, in place of what they had: one from where it is, the others from that one.

        Raises:
            WorkerError: If workers run other code than the driver, do not agree on what they loaded, or die of it.
        """
        if self._has_loaded(request):
            return
        for _ in range(MAX_LOAD_ATTEMPTS):
            try:
                self._load(request)
                return
            except ray.exceptions.RayError as error:
                reason = _first_line(error)
                self.stop()
                self._workers = [self._start() for _ in self._workers]
        raise WorkerError(
            f"workers died {MAX_LOAD_ATTEMPTS} times while they loaded the model ({reason}); see their logs"
        )

    def _load(self, request: EncoderRequest) -> None:
        self._request, self._joining, self._weights = None, {}, None
        identities = {worker.identify.remote(): worker for worker in self._workers}
        present = wait(list(identities), num_returns=self._min)
        for identity in [get(ref) for ref in present]:
            _refuse_other_code(identity)
        first, identity = identities[present[0]], get(present[0])
        if request.precision is None:
            request = replace(request, precision=identity.preferred_precision)
        self.report = get(wait([first.load.remote(request)])[0])
        self._request = request
        if len(self._workers) > 1:
            self._weights = first.pack.remote()
        for worker in self._workers:
            if worker is not first:
                self._join(worker)
        num_lost = 0
        while self.num_ready < self._min:
            num_lost += not self._welcome(wait(list(self._joining))[0])
            if num_lost >= MAX_LOAD_ATTEMPTS * len(self._workers):
                raise WorkerError(
                    f"workers died {num_lost} times while they loaded the model; if memory is short, give fewer "
                    "--workers, else see their logs"
                )

    def _has_loaded(self, request: EncoderRequest) -> bool:
        if self._request is None or self._joining:
            return False
        precision, threads = request.precision or self._request.precision, request.threads or self._threads
        loaded = replace(self._request, threads=self.report.threads)
        return replace(request, precision=precision, threads=threads) == loaded

    @property
    def num_workers(self) -> int:
        """Number of encode workers, those that wait for room included."""
        return len(self._workers)

    @property
    def num_ready(self) -> int:
        """Number of encode workers that have loaded the model."""
        return len(self._workers) - len(self._joining)

    @property
    def resources(self) -> dict[str, int]:
        """Cores and GPUs of the cluster, as they were at the start."""
        return {"cpus": self._num_cpus, "gpus": self._num_gpus}

    def run(
        self,
        shards: Sequence[Shard],
        record: RunRecord,
        root: Path,
        on_tick: Callable[[Progress], None],
        on_event: Callable[..., None] = lambda event, **details: None,
    ) -> Progress:
        """Have every shard embedded and committed.

        Args:
            shards: What is to be done.
            record: The run, passed on to the workers.
            root: The store, on a file system that all workers see.
            on_tick: Called about twice a second.
            on_event: Told of commits, losses and stragglers: a name, and details by keyword.

        Returns:
            What finished, and what was set aside because its source cannot be read.

        Raises:
            WorkerError: If a shard failed `MAX_SHARD_ATTEMPTS` times, or no worker is left.
            ClipsieveError: What a worker raised for the user, as it was raised; unreadable sources beyond
                `MAX_DAMAGED_SHARDS` too.
        """
        run = _Run(self, shards, ray.put(record), root, on_event)
        while run.queue or run.busy:
            run.hand_out()
            for ref in run.wait([*run.busy, *self._joining]):
                if ref in self._joining:
                    run.idle += self._welcome(ref, on_event)
                else:
                    run.take(ref)
            run.tick(on_tick)
        return run.progress

    def stop(self) -> None:
        """End the workers' processes."""
        for worker in self._workers:
            ray.kill(worker)

    def ready_workers(self) -> list[Any]:
        """Workers that have loaded the model."""
        joining = list(self._joining.values())
        return [worker for worker in self._workers if worker not in joining]

    def replace(self, worker: Any) -> None:
        """End a worker, and start another one that joins when there is room for it."""
        with suppress(ray.exceptions.RayError):
            ray.kill(worker)  # it may live on, cut off
        place = self._workers.index(worker)
        self._workers[place] = self._start()
        self._join(self._workers[place])

    def release(self, worker: Any) -> bool:
        """Give an idle worker's room back, if the run can do with fewer; whether it was given back."""
        if len(self._workers) <= self._min:
            return False
        ray.kill(worker)
        self._workers.remove(worker)
        return True

    def release_joining(self) -> None:
        """Wait no longer for workers that the run can do without."""
        for ref, worker in list(self._joining.items()):
            if self.release(worker):
                del self._joining[ref]

    def _join(self, worker: Any) -> None:
        self._joining[worker.load.remote(self._request, self._weights)] = worker

    def _welcome(self, ref: Any, on_event: Callable[..., None] = lambda event, **details: None) -> list[Any]:
        """Take a worker in whose loading has ended: a list of it, empty if it failed and another one was started."""
        worker = self._joining.pop(ref)
        try:
            report, identity = get(ref), get(wait([worker.identify.remote()])[0])
        except ray.exceptions.RayError as error:
            on_event("worker_lost", reason=_first_line(error))
            self._weights = None  # it may be they that are lost, with their node: from where the model is, then
            self.replace(worker)
            return []
        if report.spec.fingerprint != self.report.spec.fingerprint:
            raise WorkerError(
                f"workers loaded different encoders: {self.report.spec.describe()} and {report.spec.describe()}; "
                "put the same weights on every node"
            )
        _refuse_other_code(identity)
        on_event("worker_joined", host=identity.host)
        return [worker]

    def _start(self) -> Any:
        ahead = batches_ahead(self._num_cpus, max(1, self._num_gpus)) if self._num_gpus else batches_ahead(1, 1)
        return EncodeWorker.options(**self._options).remote(self._threads, self._decode_cpus, ahead)


class _Run:
    """The shards of one run: waiting, under way, done."""

    def __init__(
        self, pool: WorkerPool, shards: Sequence[Shard], record: Any, root: Path, on_event: Callable[..., None]
    ) -> None:
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
        if time.monotonic() - self._looked > LIVENESS_S:
            refuse_dead_node()
            self._looked = time.monotonic()
        return ray.wait(refs, timeout=POLL_S)[0]

    def take(self, ref: Any) -> None:
        worker, shard, started = self.busy.pop(ref)
        self._answered.pop(ref, None)
        twins = [other for other, (_, same, _) in self.busy.items() if same.ordinal == shard.ordinal]
        try:
            stats = get(ref)
        except InputError as error:
            self._set_aside(shard, error)
        except ray.exceptions.RayError as error:
            self._lose(worker, shard, error)
            return
        else:
            self.progress.finished.append(stats)
            self._seconds.append(time.monotonic() - started)
            self._on_event("shard_committed", shard=shard.ordinal, num_images=stats.num_images, host=stats.host)
        for other in twins:  # it would write the same bytes, later
            self._pool.replace(self.busy.pop(other)[0])
        self.idle.append(worker)

    def tick(self, on_tick: Callable[[Progress], None]) -> None:
        counts = {}
        for ref, (worker, shard, started) in list(self.busy.items()):
            try:
                done = ray.get(worker.images_done.remote(), timeout=POLL_S)
                counts[shard.ordinal] = max(counts.get(shard.ordinal, (0, 0)), done)
                self._answered[ref] = time.monotonic()
            except ray.exceptions.GetTimeoutError as error:
                if time.monotonic() - self._answered.get(ref, started) > UNRESPONSIVE_S:
                    del self.busy[ref]
                    self._lose(worker, shard, error)
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

    def _lose(self, worker: Any, shard: Shard, error: Exception) -> None:
        self._on_event("worker_lost", shard=shard.ordinal, reason=_first_line(error))
        if all(other.ordinal != shard.ordinal for _, other, _ in self.busy.values()):
            self._try_again(shard, error)
        self._pool.replace(worker)

    def _try_again(self, shard: Shard, error: Exception) -> None:
        if self._attempts[shard.ordinal] >= MAX_SHARD_ATTEMPTS:
            raise WorkerError(
                f"shard {shard.ordinal} ended its worker {MAX_SHARD_ATTEMPTS} times "
                f"({_first_line(error)}); what is committed stays, run embed again to go on"
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


def _refuse_other_code(identity: WorkerIdentity) -> None:
    if identity.code_sha256 != code_sha256():
        raise WorkerError(
            f"the node {identity.host} runs clipsieve {identity.version} (code {identity.code_sha256[:12]}), this is "
            f"{__version__} (code {code_sha256()[:12]}); install the same on every node"
        )


def _cores_of_nodes() -> list[int]:
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
