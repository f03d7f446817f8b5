"""One job per store: a lock file with an owner and a heartbeat. Works on shared file systems and needs no server."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.durable.atomic import write_json
from pipeline.errors import StoreError, StoreLocked

HEARTBEAT_S = 10.0
STALE_AFTER_S = 120.0


@contextmanager
def store_lock(root: Path, advice: str = "choose another --out") -> Iterator[None]:
    """Hold `root/lock.json` while the block runs.

    A lock is taken over if its owner's process is gone (same host), or if its heartbeat is older than
    `STALE_AFTER_S` seconds (any host, because a process id can be reused).

    Args:
        root: The folder to lock.
        advice: What the user can do if the lock cannot be written; depends on the verb.

    Raises:
        StoreLocked: If another live job holds the store. The message names it.
        StoreError: If the lock cannot be written.
    """
    path = root / "lock.json"
    owner = {"owner": uuid.uuid4().hex, "host": socket.gethostname(), "place": _place()}
    owner |= {"pid": os.getpid(), "started_at": time.time()}
    _acquire(path, owner, advice)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, owner, stop), daemon=True, name="store-lock")
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        if _read(path).get("owner") == owner["owner"]:
            with suppress(OSError):
                path.unlink()


def _acquire(path: Path, owner: dict, advice: str) -> None:
    for _ in range(3):
        descriptor = _create(path, advice)
        if descriptor is not None:
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump({**owner, "heartbeat": time.time()}, file)
            except OSError as error:
                path.unlink(missing_ok=True)  # an empty lock would look like another job's
                raise StoreError(f"cannot write {path}: {error.strerror}; free up space or {advice}") from error
            return
        if _is_stale(path) and _took_over(path, owner, advice):
            return
    raise StoreLocked(f"the store {path.parent} was just locked by another job; wait until that job is done")


def other_job(root: Path) -> str | None:
    """Who is writing a store right now, for messages. None if nobody is, or this process itself."""
    path = root / "lock.json"
    try:
        if not path.exists() or _read(path).get("pid") == os.getpid() or _is_stale(path):
            return None
    except StoreLocked:
        holder = _read(path)
        return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    return None


def _create(path: Path, advice: str) -> int | None:
    """Descriptor of the file if this call created it, None if it already existed."""
    try:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}; {advice}") from error


def _is_stale(path: Path) -> bool:
    """Whether the lock may be taken over. False if it is gone; raises StoreLocked if its owner is alive."""
    holder = _read(path)
    try:
        age_s = time.time() - holder.get("heartbeat", path.stat().st_mtime)
    except FileNotFoundError:
        return False
    if age_s > STALE_AFTER_S or (holder.get("place") == _place() and not _is_alive(holder["pid"])):
        return True
    raise StoreLocked(
        f"the store {path.parent} is in use by process {holder.get('pid', '?')} on {holder.get('host', '?')} "
        f"(last heartbeat {age_s:.0f} s ago); wait until it is done, or stop it"
    )


def _took_over(path: Path, owner: dict, advice: str) -> bool:
    # Of all jobs that find the lock stale, the one that creates this file checks again and replaces the lock with its
    # own. If they removed the stale lock instead, a slow job could remove the new lock of a fast one.
    guard = path.with_name(".lock.takeover.tmp")
    descriptor = _create(guard, advice)
    if descriptor is None:
        with suppress(FileNotFoundError):
            if time.time() - guard.stat().st_mtime > STALE_AFTER_S:  # its creator died right after creating it
                guard.unlink()
        return False
    os.close(descriptor)
    try:
        if not _is_stale(path):
            return False
        write_json(path, {**owner, "heartbeat": time.time()})
        return True
    finally:
        guard.unlink(missing_ok=True)


def _beat(path: Path, owner: dict, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        holder = _read(path)
        if holder and holder.get("owner") != owner["owner"]:  # one failed read does not mean it was taken over
            return
        with suppress(StoreError):  # the next beat makes up for a missed one
            write_json(path, {**owner, "heartbeat": time.time()})


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _place() -> str:
    """Host and PID namespace, which give a process id its meaning: containers can share a host name, not processes."""
    try:
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        processes = ""
    return f"{socket.gethostname()} {processes}".strip()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
