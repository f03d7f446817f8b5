"""The connection to Ray: join or start it, wait for results, notice when its processes are gone."""

import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from pipeline.errors import ClipsieveError, InputError, WorkerError, first_line
from pipeline.machine import num_cores

_OBJECT_STORE_BYTES = 2 * 2**30
LIVENESS_S = 5.0
"""How often what Ray runs on is looked at while something is waited for."""


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
            # for the workers, which inherit it: one heap for all their threads, so that the large buffers which
            # `prepare_for_torch` keeps are found again, and large pages for it
            os.environ.setdefault("MALLOC_ARENA_MAX", "1")
            os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
            ray.init(
                address="local",  # else Ray would join what another job left running on this machine
                num_cpus=num_cores(),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _system_config={
                    # else Ray ends idle decode processes between shards, for there are more processes than cores
                    "num_workers_soft_limit": 4 * num_cores(),
                    # else `init` waits for processes started in advance, without an end if one of them is killed
                    "prestart_worker_first_driver": False,
                },
                **quiet,
            )
    except Exception as error:  # it raises many kinds, plain ones too
        reason = first_line(error)
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


def cluster_resources(address: str | None) -> tuple[int, int] | None:
    """Cores and GPUs of a cluster; None if no address is given or set.

    Raises:
        InputError: If the cluster does not answer.
    """
    if not (address or os.environ.get("RAY_ADDRESS")):
        return None
    with ray_session(address):
        found = ray.cluster_resources()
    return int(found.get("CPU", 1)), int(found.get("GPU", 0))


def get(ref: Any) -> Any:
    """`ray.get`, with what a worker raised for the user raised again as itself."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ClipsieveError):
            raise error.cause from None
        if isinstance(error.cause, ray.exceptions.RayError):
            raise error.cause from error
        reason = first_line(error.cause)
        raise WorkerError(
            f"a worker failed: {type(error.cause).__name__}: {reason}; this is a defect, report it"
        ) from error


def wait(refs: list[Any], num_returns: int = 1, limit_s: float = math.inf) -> list[Any]:
    """The first `num_returns` of some results that are ready, or fewer if no more are within `limit_s`.

    Raises:
        WorkerError: If Ray's own processes on this machine died; they would be waited for without an end.
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
            "Ray's processes on this machine died; what is committed stays, run the same command to go on"
        )


def node_is_alive() -> bool:
    """Whether Ray's processes on this machine run; without them nothing that is waited for comes."""
    # those that we started: at once, for when Ray itself comes to know, it ends this process without a word
    started = ray._private.worker._global_node
    if started and any(kind in ("raylet", "gcs_server") for kind, _ in started.dead_processes()):
        return False
    here = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == here and node["Alive"] for node in ray.nodes())


WORKERS_GONE_S = 600.0
"""How long a run without any worker waits for one."""
