"""Run the stages on Ray. Home of `ray`; of models it knows how to load one and the `Encoder`.

    driver  -- shards -->  EncodeWorker (one per GPU, or per CPU core)  -- stats -->  driver
                                 |  ^
                        entries  v  |  uint8 pixels      a few batches ahead, no more
                             decode tasks (CPU)

The driver never sees an image. It does not import torch either, so that a head node without a GPU decides nothing.
"""

import logging
import math
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from pipeline.decode import decode_batch
from pipeline.errors import ClipsieveError, ConfigError, InputError, WorkerError
from pipeline.machine import num_cores, prepare_for_torch
from pipeline.plan import Shard
from pipeline.policy import PruningPolicy
from pipeline.schema import ImageRecord
from pipeline.source import ImageEntry
from pipeline.spec import EncoderSpec, ModelSource, Precision, Preprocess
from pipeline.store import RunRecord, ShardStats, Store

BATCHES_AHEAD = 3
MAX_SHARD_ATTEMPTS = 3
POLL_S = 0.5
_OBJECT_STORE_BYTES = 2 * 2**30
# On a machine without GPUs encoding and decoding share the cores: an encode worker reserves most of its core, and
# the rest is enough to admit one decode task per core.
_ENCODE_CPUS = 0.75
_DECODE_CPUS = 0.25
_DECODER_LOST = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)


@dataclass(frozen=True, slots=True)
class EncoderRequest:
    """What the workers shall load; None lets their hardware decide on precision, and their cores on threads."""

    source: ModelSource
    policy: PruningPolicy | None
    precision: Precision | None
    max_pixels: int
    threads: int | None = None
    policy_is_default: bool = False
    """Whether a tower that cannot be pruned may go without."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker found itself to be after loading."""

    spec: EncoderSpec
    warning: str | None
    device: str
    batch_size: int
    threads: int
    versions: dict[str, str]


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Be connected to Ray within the block: the one already here, a cluster's, or a new one on this machine.

    Raises:
        InputError: If the cluster does not answer.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning on machines without GPUs
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address:
            _check_answers(address)
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local",  # else Ray would join what another job left running on this machine
                num_cpus=num_cores(),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                # else Ray ends idle decode processes between shards, for there are more processes than cores
                _system_config={"num_workers_soft_limit": 4 * num_cores()},
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        advice = "see /tmp/ray/session_latest/logs"
        if address:
            advice = "check --ray-address; if the head asks for a token, set RAY_AUTH_MODE=token and copy its token"
        raise InputError(f"cannot join Ray at {address or 'this machine'}: {reason}; {advice}") from error
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler prints its stack and exits; stop as tidily as for Ctrl-C instead
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Knock before Ray does, which would try for minutes; for HOST:PORT, other forms are Ray's to read."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


@contextmanager
def worker_pool(address: str | None, num_workers: int | None) -> Iterator["WorkerPool"]:
    """A Ray session with encode workers, all ended with the block."""
    with ray_session(address):
        pool = WorkerPool(num_workers)
        try:
            yield pool
        finally:
            pool.stop()


class WorkerPool:
    """Encode workers, one per GPU of the cluster, else one per CPU core; of use once a model is loaded."""

    report: WorkerReport
    """What the workers loaded last."""

    def __init__(self, num_workers: int | None) -> None:
        """Start the workers.

        Raises:
            ConfigError: If there are more workers than cores.
        """
        resources = ray.cluster_resources()
        num_gpus = int(resources.get("GPU", 0))
        cores = int(resources.get("CPU", 1))
        count = num_workers or num_gpus or cores
        if not num_gpus and count > cores:
            # Ray would wait for more cores without a word
            raise ConfigError(f"workers = {count}: there are {cores} CPU cores and no GPU; give at most {cores}")
        self._threads = 1 if num_gpus else min(max(1, cores // count), _most_cores_of_a_node())
        self._options = _worker_options(num_gpus, count, self._threads)
        self._decode_cpus = 1.0 if num_gpus else _DECODE_CPUS
        self._workers = [self._start() for _ in range(count)]

    def load(self, request: EncoderRequest) -> None:
        """Have every worker load a model, in place of what it had.

        Raises:
            WorkerError: If the workers do not agree on what they loaded.
        """
        if request.precision is None:
            offered: Precision = _get(self._workers[0].preferred_precision.remote())
            request = replace(request, precision=offered)
        self._request = request
        self.report, *others = [_get(ref) for ref in [worker.load.remote(request) for worker in self._workers]]
        for report in others:
            if report.spec.fingerprint != self.report.spec.fingerprint:
                raise WorkerError(
                    f"workers loaded different encoders: {self.report.spec.describe()} and {report.spec.describe()}; "
                    "put the same weights on every node"
                )

    @property
    def num_workers(self) -> int:
        """Number of encode workers."""
        return len(self._workers)

    def run(
        self, shards: Sequence[Shard], record: RunRecord, root: Path, on_tick: Callable[[int, list[ShardStats]], None]
    ) -> list[ShardStats]:
        """Have every shard embedded and committed.

        Args:
            shards: What is to be done.
            record: The run, passed on to the workers.
            root: The store, on a file system that all workers see.
            on_tick: Called about twice a second with the images done in unfinished shards, and the shards finished.

        Raises:
            WorkerError: If a shard failed `MAX_SHARD_ATTEMPTS` times.
            ClipsieveError: What a worker raised for the user, as it was raised.
        """
        queue, idle = deque(shards), deque(self._workers)
        shared_record = ray.put(record)
        busy: dict[Any, tuple[Any, Shard]] = {}
        attempts: dict[int, int] = {}
        finished: list[ShardStats] = []
        while queue or busy:
            while queue and idle:
                worker, shard = idle.popleft(), queue.popleft()
                attempts[shard.ordinal] = attempts.get(shard.ordinal, 0) + 1
                busy[worker.embed_shard.remote(shard, shared_record, root)] = (worker, shard)
            done, _ = ray.wait(list(busy), timeout=POLL_S)
            for ref in done:
                worker, shard = busy.pop(ref)
                try:
                    finished.append(_get(ref))
                except ray.exceptions.RayError as error:
                    if attempts[shard.ordinal] >= MAX_SHARD_ATTEMPTS:
                        raise WorkerError(
                            f"shard {shard.ordinal} ended its worker {MAX_SHARD_ATTEMPTS} times "
                            f"({str(error).splitlines()[0]}); what is committed stays, run embed again to go on"
                        ) from error
                    queue.appendleft(shard)
                    worker = self._replace(worker)
                idle.append(worker)
            on_tick(_images_under_way([worker for worker, _ in busy.values()]), finished)
        return finished

    def stop(self) -> None:
        """End the workers' processes."""
        for worker in self._workers:
            ray.kill(worker)

    def _replace(self, worker: Any) -> Any:
        ray.kill(worker)  # it may live on, cut off
        place = self._workers.index(worker)
        self._workers[place] = self._start()
        self._workers[place].load.remote(self._request)  # calls are served in order: a shard waits for it
        return self._workers[place]

    def _start(self) -> Any:
        return EncodeWorker.options(**self._options).remote(self._threads, self._decode_cpus)


@ray.remote(concurrency_groups={"progress": 1})  # one thread loads and embeds, one answers how far it is
class EncodeWorker:
    """Owns a device and a model; embeds and commits one shard at a time."""

    def __init__(self, threads: int, decode_cpus: float) -> None:
        prepare_for_torch()
        self._threads = threads
        self._decode_options = {"num_cpus": decode_cpus}
        self._decode = _decode_task.options(**self._decode_options)
        self._images_done = 0

    def preferred_precision(self) -> Precision:
        """What this worker's hardware computes fastest."""
        from pipeline.model.load import preferred_precision

        return preferred_precision(self._device())

    def load(self, request: EncoderRequest) -> WorkerReport:
        """Load the model and warm it up."""
        import numpy as np
        import open_clip
        import torch

        from pipeline.encode import Encoder, default_batch_size, device_name
        from pipeline.model.families import unprunable_reason
        from pipeline.model.load import load_model

        self._threads = request.threads or self._threads
        torch.set_num_threads(self._threads)
        device = self._device()
        self._encoder = None  # make room
        self._max_pixels = request.max_pixels
        loaded = load_model(request.source, request.precision, device)
        reason = unprunable_reason(loaded.clip.visual) if request.policy_is_default else None
        warning = f"this image tower cannot be pruned: {reason}; it runs unpruned" if reason else None
        self._encoder = Encoder(loaded, None if reason else request.policy)
        preprocess = self._encoder.spec.preprocess
        batch_size = default_batch_size(device)
        # warm up: the first forward pass and the first decode tasks, whose processes have to start, take seconds
        decoders = [_warm_up.options(**self._decode_options).remote() for _ in range(BATCHES_AHEAD)]
        self._encoder.encode(np.zeros((batch_size, preprocess.height, preprocess.width, 3), np.uint8))
        _get(decoders)
        # plain text: torch's own version type would make the driver import torch to read it
        versions = {"torch": str(torch.__version__), "open_clip": str(open_clip.__version__)}
        return WorkerReport(self._encoder.spec, warning, device_name(device), batch_size, self._threads, versions)

    def embed_shard(self, shard: Shard, record: RunRecord, root: Path) -> ShardStats:
        """Embed and commit one shard."""
        import torch

        from pipeline.shard import embed_shard

        torch.set_num_threads(self._threads)  # the count belongs to the calling thread
        try:
            return embed_shard(shard, record, Store(root), self._encoder, self._decode_ahead, self._count)
        finally:
            self._images_done = 0  # now, not at the next start: these images are counted with the finished shard

    @ray.method(concurrency_group="progress")
    def images_done(self) -> int:
        """Images done in the shard under way."""
        return self._images_done

    def _count(self, num_images: int) -> None:
        self._images_done += num_images

    def _decode_ahead(self, batches: Iterable[Sequence[ImageEntry]]) -> Iterator[tuple[Any, list[ImageRecord]]]:
        preprocess = self._encoder.spec.preprocess
        pending: deque[tuple[Sequence[ImageEntry], Any]] = deque()
        for batch in batches:
            pending.append((batch, self._decode.remote(batch, preprocess, self._max_pixels)))
            if len(pending) > BATCHES_AHEAD:
                yield self._decoded(*pending.popleft())
        while pending:
            yield self._decoded(*pending.popleft())

    def _decoded(self, batch: Sequence[ImageEntry], ref: Any) -> tuple[Any, list[ImageRecord]]:
        try:
            return _get(ref)
        except _DECODER_LOST:
            return self._decode_one_by_one(batch)

    def _decode_one_by_one(self, batch: Sequence[ImageEntry]) -> tuple[Any, list[ImageRecord]]:
        # Some image in this batch ends the process that decodes it. It costs that image, not the batch.
        import numpy as np

        preprocess = self._encoder.spec.preprocess
        pixels = np.zeros((len(batch), preprocess.height, preprocess.width, 3), np.uint8)
        records = []
        for slot, entry in enumerate(batch):
            try:
                one, [record] = _get(self._decode.remote([entry], preprocess, self._max_pixels))
                pixels[slot] = one[0]
            except _DECODER_LOST:
                reason = "its decoder's process crashed"
                record = ImageRecord(entry.key, entry.uri, entry.caption, None, None, None, "crashed", reason)
            records.append(record)
        return pixels, records

    def _device(self) -> Any:
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@ray.remote(max_retries=1)
def _decode_task(
    entries: Sequence[ImageEntry], preprocess: Preprocess, max_pixels: int
) -> tuple[Any, list[ImageRecord]]:
    return decode_batch(entries, preprocess, max_pixels)


@ray.remote
def _warm_up() -> None:
    time.sleep(0.5)  # long enough that the next one needs, and starts, a process of its own


def _worker_options(num_gpus: int, count: int, threads: int) -> dict[str, float]:
    if num_gpus:
        return {"num_gpus": 1 / math.ceil(count / num_gpus), "num_cpus": 0}
    # Ray takes fractions of a core only below one
    return {"num_cpus": _ENCODE_CPUS if threads == 1 else threads - 1}


def _most_cores_of_a_node() -> int:
    return max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])


def _images_under_way(workers: Sequence[Any]) -> int:
    counts = 0
    for ref in [worker.images_done.remote() for worker in workers]:
        with suppress(ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError):
            counts += ray.get(ref, timeout=POLL_S)
    return counts


def _get(ref: Any) -> Any:
    """`ray.get`, with what a worker raised for the user raised again as itself."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ClipsieveError):
            raise error.cause from None
        if isinstance(error.cause, ray.exceptions.RayError):
            raise error.cause from error
        reason = str(error.cause).splitlines()[0] if str(error.cause) else ""
        raise WorkerError(
            f"a worker failed: {type(error.cause).__name__}: {reason}; this is a defect, report it"
        ) from error
