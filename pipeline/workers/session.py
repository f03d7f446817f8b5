"""The connection to Ray: connect to it or start it, wait for results, detect when its processes are gone."""

import logging
import math
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import ray
from ray.job_config import JobConfig

from pipeline.errors import ClipsieveError, InputError, WorkerError
from pipeline.machine import num_cores
from pipeline.workers.causes import cause_of
from pipeline.workers.surroundings import RayFolders, environment, python_environment, ray_folders

_OBJECT_STORE_BYTES = 2 * 2**30
LIVENESS_S = 5.0
"""How often to check Ray's processes while waiting for results."""

WORKERS_GONE_S = 600.0
"""How long a run without workers waits for one."""

CHECK = "check the installation with `clipsieve doctor`, on a cluster on every node"
"""What to do when a worker cannot import what it needs."""


class _Job(JobConfig):
    """A job whose workers import nothing from the driver's current folder, which may be a downloaded data set."""

    def _serialize(self) -> str:
        # Ray calls this just before it connects, after it put the current folder and that of the script at the start
        # of the workers' search path
        self._py_driver_sys_path.clear()
        return super()._serialize()


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Connect to Ray for the block: an existing connection, a cluster, or a new instance on this machine.

    Raises:
        InputError: If the cluster does not answer, or Ray cannot start on this machine.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning on machines without GPUs
    # Ray prints the errors of its processes on standard output, even with log_to_driver=False; they are in its logs
    ray._private.worker._worker_logs_enabled = False
    with _connected(address) if address else _started_here():
        if threading.current_thread() is threading.main_thread():
            # Ray's own handler prints its stack and exits; shut down cleanly as for Ctrl-C instead
            signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        yield


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a cluster, whose workers import what is installed on their nodes."""
    try:
        _check_answers(address)
        _init(address=address)
    except Exception as error:  # Ray raises many types, including built-in ones
        raise InputError(
            f"cannot connect to Ray at {address}: {cause_of(error)}; check --ray-address; if the head requires a "
            "token, set RAY_AUTH_MODE=token and copy its token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _started_here() -> Iterator[None]:
    """Start Ray on this machine, with files of its own and workers that import what the driver imports."""
    # inherited by the workers: one heap for all their threads, so that they reuse the large buffers which
    # `prepare_for_torch` keeps, and large pages for that heap
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    with ray_folders() as folders:
        try:
            try:
                _start(folders)
            except Exception as error:  # Ray raises many types, including built-in ones
                advice = f"see the logs in {folders.logs}" if folders.has_logs else "run `clipsieve doctor`"
                raise InputError(f"cannot start Ray on this machine: {cause_of(error)}; {advice}") from error
            yield
        except ClipsieveError as error:
            folders.is_kept = str(folders.own) in str(error)
            raise
        finally:
            ray.shutdown()


def _start(folders: RayFolders) -> None:
    token = os.environ.get("RAY_AUTH_TOKEN") or _own_token()
    with environment(**python_environment(), RAY_AUTH_TOKEN=token):
        _init(
            address="local",  # otherwise Ray would join an instance left by another job on this machine
            num_cpus=num_cores(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            object_spilling_directory=str(folders.large),
            _temp_dir=str(folders.own),
            _system_config={
                # otherwise Ray stops idle decode processes between shards, as there are more processes than cores
                "num_workers_soft_limit": 4 * num_cores(),
                # otherwise `init` waits for prestarted processes, forever if one of them is killed
                "prestart_worker_first_driver": False,
            },
        )


@cache
def _own_token() -> str:
    """What the processes of a Ray on this machine know each other by; Ray would keep one in the home folder.

    It is the same for the whole life of this process, because Ray reads it once.
    """
    return secrets.token_hex(32)


def _init(address: str, **options: Any) -> None:
    # the driver of ray:// runs on the cluster: there is nothing here to keep from its workers
    job = None if address.startswith("ray://") else _Job()
    ray.init(address=address, job_config=job, logging_level=logging.CRITICAL, log_to_driver=False, **options)


def is_ours() -> bool:
    """Whether this process started the Ray it uses."""
    node = ray._private.worker._global_node
    return bool(node and node.head)


def logs() -> str:
    """Where to find the logs of the workers, as advice."""
    if is_ours():
        return f"see the logs in {ray._private.worker._global_node.get_logs_dir_path()}"
    return "see Ray's logs on the nodes, usually in /tmp/ray/session_latest/logs"


def _check_answers(address: str) -> None:
    """Check a HOST:PORT address first, because Ray would retry for minutes; other forms are left to Ray."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


def cluster_resources(address: str | None) -> tuple[int, int] | None:
    """Number of cores and GPUs of a cluster; None if no address is given or set in the environment.

    Raises:
        InputError: If the cluster does not answer.
    """
    if not (address or os.environ.get("RAY_ADDRESS")):
        return None
    with ray_session(address):
        found = ray.cluster_resources()
    return int(found.get("CPU", 1)), int(found.get("GPU", 0))


def get(ref: Any) -> Any:
    """Like `ray.get`, but re-raise errors that a worker raised for the user as themselves."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ClipsieveError):
            raise error.cause from None
        if isinstance(error.cause, ray.exceptions.RayError):
            raise error.cause from error
        if isinstance(error.cause, ImportError):
            raise WorkerError(f"a worker cannot start: {cause_of(error)}; {CHECK}") from error
        raise WorkerError(f"a worker failed: {cause_of(error)}; this is a bug, please report it") from error


def wait(refs: list[Any], num_returns: int = 1, limit_s: float = math.inf) -> list[Any]:
    """Wait until `num_returns` results are ready and return them, or fewer if `limit_s` passes first.

    Raises:
        WorkerError: If Ray's own processes on this machine died, since the wait would never end.
    """
    deadline = time.monotonic() + limit_s
    while True:
        ready, _ = ray.wait(refs, num_returns=num_returns, timeout=LIVENESS_S)
        if len(ready) >= num_returns or time.monotonic() > deadline:
            return ready
        refuse_dead_node()


def refuse_dead_node() -> None:
    """Raise WorkerError if Ray's processes on this machine are gone."""
    if not node_is_alive():
        raise WorkerError(
            "Ray's processes on this machine died; committed shards are safe: run the same command to resume"
        )


def node_is_alive() -> bool:
    """Whether Ray's processes on this machine are running; without them no result ever arrives."""
    # check the ones we started directly: when Ray itself notices, it silently ends this process
    started = ray._private.worker._global_node
    if started and any(kind in ("raylet", "gcs_server") for kind, _ in started.dead_processes()):
        return False
    here = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == here and node["Alive"] for node in ray.nodes())
