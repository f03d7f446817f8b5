"""The encode workers of a driver: start them, load a model on them, replace lost ones, stop them."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import ray

from pipeline import __version__
from pipeline.errors import ConfigError, WorkerError
from pipeline.model.precision import EIGHT_BITS, PrecisionChoice
from pipeline.model.spec import DeviceChoice
from pipeline.settings.workers import CompileChoice, WorkerSettings
from pipeline.workers.causes import cause_of
from pipeline.workers.cores import cpus_reserved, threads_that_fit
from pipeline.workers.decode_task import tasks_ahead
from pipeline.workers.encode_worker import EncodeWorker
from pipeline.workers.messages import EncoderRequest, WorkerIdentity, WorkerReport, code_sha256
from pipeline.workers.session import CHECK, WORKERS_GONE_S, get, is_ours, logs, node_is_alive, ray_session, wait

MAX_LOAD_ATTEMPTS = 3
COMPILE_FROM = 500_000
"""Images per GPU from which the time saved on a ViT-B exceeds that spent on compiling it."""

SETTLE_S = 10.0
"""How long to wait for a worker to finish starting before stopping it."""


@contextmanager
def worker_pool(settings: WorkerSettings, min_workers: int | None = None) -> Iterator["WorkerPool"]:
    """Open a Ray session with encode workers; both are stopped when the block exits."""
    with ray_session(settings.ray_address):
        pool = WorkerPool(settings.workers, min_workers, settings.device)
        try:
            yield pool
        finally:
            pool.stop()


class WorkerPool:
    """Encode workers, one per GPU of the cluster, else one per CPU core. Call `load` before using them."""

    report: WorkerReport
    """The last model that the workers loaded."""

    joining: dict[Any, Any]
    """Workers that are still loading, by the Ray reference of their `load` call."""

    def __init__(self, num_workers: int | None, min_workers: int | None = None, device: DeviceChoice = "auto") -> None:
        """Start the workers.

        Args:
            num_workers: Maximum number of workers; those without resources wait for the cluster to grow.
            min_workers: Number of workers needed to start; None means all of them.
            device: `cpu` uses no GPU, `cuda` requires one, `auto` uses the GPUs of the cluster, if any.

        Raises:
            ConfigError: If the workers needed to start exceed the cores, or a required GPU is missing.
        """
        resources = ray.cluster_resources()
        self._device = device
        self._num_gpus = 0 if device == "cpu" else int(resources.get("GPU", 0))
        if device == "cuda" and not self._num_gpus:
            raise ConfigError("device = 'cuda': Ray finds no GPU; give --device cpu, or run `clipsieve doctor`")
        self._num_cpus = int(resources.get("CPU", 1))
        count = num_workers or self._num_gpus or self._num_cpus
        self._min = min(min_workers or count, count)
        if not self._num_gpus and self._min > self._num_cpus:
            # Ray would silently wait for more cores
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
        self.joining = {}
        self._request: EncoderRequest | None = None
        self._decided: EncoderRequest | None = None
        self._weights: Any = None
        self._compiles = False

    def load(self, request: EncoderRequest) -> None:
        """Load a model on all workers, replacing any earlier one: one loads the source, the others copy its weights.

        Raises:
            WorkerError: If workers run different code from the driver, load different encoders, or keep dying.
        """
        if self._has_loaded(request):
            self.report = replace(self.report, calibrating=None)  # that was an earlier run
            return
        for _ in range(MAX_LOAD_ATTEMPTS):
            try:
                self._load(request)
                return
            except ray.exceptions.RayError as error:
                reason = cause_of(error)
                if getattr(error, "actor_init_failed", False):  # it would fail again
                    raise WorkerError(f"a worker cannot start: {reason}; {CHECK}") from error
                self.stop()
                self._workers = [self._start() for _ in self._workers]
        raise WorkerError(f"workers died {MAX_LOAD_ATTEMPTS} times while loading the model ({reason}); {logs()}")

    def _load(self, request: EncoderRequest) -> None:
        self._request, self.joining, self._weights, self._compiles = None, {}, None, False
        identities = {worker.identify.remote(): worker for worker in self._workers}
        present = wait(list(identities), self._min, WORKERS_GONE_S)
        if len(present) < self._min:
            raise WorkerError(
                f"only {len(present)} of {self._min} workers got resources within {WORKERS_GONE_S:.0f} s; give fewer "
                f"--workers, or give --min-workers to start with fewer; otherwise {logs()}"
            )
        for identity in [get(ref) for ref in present]:
            _refuse_other_code(identity)
        first = identities[present[0]]
        self.report = get(wait([first.load.remote(self._as_decided(request))])[0])
        # the others compute as the first one found fastest, so that the bytes of a part do not depend on the worker
        self._request = replace(
            request,
            precision=self.report.spec.precision,
            kernels=self.report.kernels,
            calibration=self.report.calibration,
            sample=None,
        )
        if self._decided is None and self.report.measurement:
            self._decided = self._request
        if len(self._workers) > 1:
            self._weights = first.pack.remote()
        for worker in self._workers:
            if worker is not first:
                self._join(worker)
        causes: list[str] = []
        while self.num_ready < self._min:
            self.accept_worker(
                wait(list(self.joining))[0],
                lambda event, **details: causes.append(details["reason"]) if event == "worker_lost" else None,
            )
            if len(causes) >= MAX_LOAD_ATTEMPTS * len(self._workers):
                raise WorkerError(
                    f"workers died {len(causes)} times while loading the model ({causes[-1]}); if memory is short, "
                    f"give fewer --workers, otherwise {logs()}"
                )

    def compile_towers(self, choice: CompileChoice, num_images: int) -> None:
        """Have all workers compile the loaded tower, at once, if the choice and the number of images say so.

        Only on GPUs. If a worker cannot compile it, `report.warning` says so, and its tower runs as it is.
        """
        is_asked = choice == "on" or (choice == "auto" and num_images >= COMPILE_FROM * self._num_gpus)
        if self._compiles or not is_asked or not self._num_gpus:
            return
        self._compiles = True  # workers that join later do so, too
        reasons = []
        for ref in [worker.compile_tower.remote() for worker in self.ready_workers()]:
            with suppress(ray.exceptions.RayError):  # a lost worker is noticed and replaced when it gets a shard
                reasons.append(get(ref))
        reason = next(filter(None, reasons), None)
        if reason:
            warnings = [self.report.warning, f"the image tower cannot be compiled: {reason}; it runs uncompiled"]
            self.report = replace(self.report, warning="; ".join(filter(None, warnings)))

    def _has_loaded(self, request: EncoderRequest) -> bool:
        if self._request is None or self.joining:
            return False
        loaded = replace(self._request, threads=self.report.threads)
        asked = replace(
            request,
            precision=loaded.precision if _leaves_open(request.precision, loaded.precision) else request.precision,
            kernels=request.kernels or loaded.kernels,
            threads=request.threads or self._threads,
        )
        return asked == loaded

    def _as_decided(self, request: EncoderRequest) -> EncoderRequest:
        """The request; where it leaves a choice, as measured with the first model: stores are compared with others."""
        if self._decided is None or request.kernels or request.precision not in (None, self._decided.precision):
            return request
        return replace(request, precision=self._decided.precision, kernels=self._decided.kernels)

    @property
    def num_workers(self) -> int:
        """Number of encode workers, including those waiting for resources."""
        return len(self._workers)

    @property
    def num_ready(self) -> int:
        """Number of encode workers that have loaded the model."""
        return len(self._workers) - len(self.joining)

    @property
    def resources(self) -> dict[str, int]:
        """Cores and GPUs of the cluster at the start."""
        return {"cpus": self._num_cpus, "gpus": self._num_gpus}

    def stop(self) -> None:
        """Stop the workers' processes."""
        _end(self._workers)

    def ready_workers(self) -> list[Any]:
        """Workers that have loaded the model."""
        joining = list(self.joining.values())
        return [worker for worker in self._workers if worker not in joining]

    def replace(self, worker: Any) -> None:
        """Stop a worker, and start another that joins once it gets resources."""
        with suppress(ray.exceptions.RayError):
            ray.kill(worker)  # it may still be alive but unreachable
        place = self._workers.index(worker)
        self._workers[place] = self._start()
        self._join(self._workers[place])

    def release(self, worker: Any) -> bool:
        """Stop an idle worker if the run can do with fewer; return True if it was stopped."""
        if len(self._workers) <= self._min:
            return False
        ray.kill(worker)
        self._workers.remove(worker)
        return True

    def release_joining(self) -> None:
        """Stop waiting for workers that the run does not need."""
        spare = list(self.joining.items())[: max(0, len(self._workers) - self._min)]
        if spare:
            _end([worker for _, worker in spare])
        for ref, worker in spare:
            self._workers.remove(worker)
            del self.joining[ref]

    def _join(self, worker: Any) -> None:
        self.joining[worker.load.remote(self._request, self._weights)] = worker

    def accept_worker(self, ref: Any, on_event: Callable[..., None] = lambda event, **details: None) -> list[Any]:
        """Accept a worker that has finished loading; returns [worker], or [] if it failed and was replaced."""
        worker = self.joining.pop(ref)
        try:
            report, identity = get(ref), get(wait([worker.identify.remote()])[0])
        except ray.exceptions.RayError as error:
            on_event("worker_lost", reason=cause_of(error))
            self._weights = None  # their node may be lost: load from the model's source instead
            self.replace(worker)
            return []
        if report.spec.fingerprint != self.report.spec.fingerprint:
            raise WorkerError(
                f"workers loaded different encoders: {self.report.spec.describe()} and {report.spec.describe()}; "
                "use the same weights on every node"
            )
        _refuse_other_code(identity)
        on_event("worker_joined", host=identity.host)
        if self._compiles:
            worker.compile_tower.remote()  # before its first shard; nothing waits for it
        return [worker]

    def _start(self) -> Any:
        ahead = tasks_ahead(self._num_cpus, max(1, self._num_gpus)) if self._num_gpus else tasks_ahead(1, 1)
        return EncodeWorker.options(**self._options).remote(self._threads, self._decode_cpus, ahead, self._device)


def _leaves_open(asked: PrecisionChoice | None, found: PrecisionChoice | None) -> bool:
    """Whether a choice of precision can be what was found."""
    return asked is None or (asked == "8bit" and found in EIGHT_BITS)


def _end(workers: Sequence[Any]) -> None:
    # Ray 2.60 never frees the resources of an actor killed at the moment it is assigned its process, so let them
    # start first. Workers that wait for resources do not answer, and are safe to kill.
    if node_is_alive():
        ray.wait([worker.images_done.remote() for worker in workers], num_returns=len(workers), timeout=SETTLE_S)
    for worker in workers:
        ray.kill(worker)


def _refuse_other_code(identity: WorkerIdentity) -> None:
    if identity.code_sha256 != code_sha256():
        if is_ours():
            raise WorkerError("the code of clipsieve changed while its workers started; run the same command again")
        raise WorkerError(
            f"node {identity.host} runs clipsieve {identity.version} (code {identity.code_sha256[:12]}), but this is "
            f"{__version__} (code {code_sha256()[:12]}); install the same version on every node"
        )


def _cores_of_nodes() -> list[int]:
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
