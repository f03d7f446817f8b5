"""Open, read, examine and list paths and URLs.

A refusal or a missing file is a definite answer about that file. If the server fails to answer, the request is retried
for about half a minute; after that, the server is at fault, not the image. The same holds for errors that would affect
every image, such as bad credentials or a missing library.
"""

import functools
import io
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Literal, TypeVar

from pipeline.errors import InputError, SourceUnavailable
from pipeline.source.access.credentials import KEYRING
from pipeline.source.access.failures import is_global, is_transient, reason_of, reason_to_read_later
from pipeline.source.access.naming import is_url, is_web, path_of, uri_of
from pipeline.source.access.remote import ALWAYS_HERE, Found, Remote, remote_of
from pipeline.source.limits import known_size, known_time_ns

T = TypeVar("T")
S = TypeVar("S")
RETRY_WAITS_S = (0.5, 1, 2, 4, 8, 16)
WEB_RETRIES = 4
"""Web sites get fewer retries: a list can name thousands of sites, and some are always down."""

THREADS = 16
"""Concurrent requests to a server while listing."""

BUFFER_BYTES = 2**22
"""Minimum size of a read from a server, because each request has a latency."""

_SILENT_S = 600.0
_silent_sites: dict[str, float] = {}


def examine(location: str) -> tuple[int, int]:
    """Size in bytes and mtime in ns of one file; 0 if the server does not report it.

    Raises:
        InputError: If it does not exist, is not a file, or access is refused.
    """
    try:
        found = with_retries(lambda: _examine(location), location)
    except OSError as error:
        reason = reason_to_read_later(error, location)
        raise InputError(f"cannot read {location}: {reason}; check the name and its permissions") from error
    if found is None:
        raise InputError(f"source {location} does not exist; check the name and its permissions")
    if found.is_folder:
        raise InputError(f"source {location} is not a file; pass a file, or check --input-format")
    return found.num_bytes, found.mtime_ns


def children(url: str) -> Iterable[Found]:
    """List the direct children of a remote folder.

    Raises:
        InputError: If the folder or its bucket does not exist, or access is refused.
    """
    try:
        return with_retries(lambda: _ask(url, "children"), url)
    except OSError as error:
        raise InputError(f"cannot list {url}: {reason_of(error)}; check the name and its permissions") from error


def walk(url: str, enters: Callable[[str, str], bool]) -> Iterator[tuple[str, Found]]:
    """Yield each file under a remote folder with its relative path, in no order.

    `enters` says by relative path and name whether to take a file or folder.

    Raises:
        InputError: If a folder or its bucket does not exist, or access is refused.
    """
    root = url.rstrip("/")
    todo, running = [""], deque()
    with ThreadPoolExecutor(THREADS) as threads:
        while todo or running:
            while todo and len(running) < THREADS:
                folder = todo.pop()
                running.append((folder, threads.submit(children, root + folder)))
            folder, answer = running.popleft()
            for found in answer.result():
                name = f"{folder}/{found.name}"
                if not enters(name[1:], found.name):
                    continue
                if found.is_folder:
                    todo.append(name)
                else:
                    yield name[1:], found


def map_concurrently(call: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Yield `call(item)` for each item, in order. Runs several calls at once, for calls that wait for a server."""
    with ThreadPoolExecutor(THREADS) as threads:
        try:
            yield from threads.map(call, items)
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def read_bytes(uri: str, max_bytes: int) -> bytes:
    """Read all bytes of a file.

    Raises:
        TooLarge: If there are more than `max_bytes`.
        OSError: If it does not exist, access is refused, or (local files) it cannot be read.
        SourceUnavailable: If its server or network disk does not respond.
    """
    if not is_url(uri):
        return with_retries(lambda: _read_local(path_of(uri), max_bytes), uri)
    data = with_retries(lambda: _ask(uri, "read", max_bytes), uri)
    if len(data) > max_bytes:
        raise TooLarge(f"more than {max_bytes} bytes")
    return data


def open_stream(uri: str) -> BinaryIO:
    """Open a file for reading and seeking. Remote reads are retried as in `with_retries`.

    Raises:
        OSError: If it does not exist, access is refused, or (local files) it cannot be read.
        SourceUnavailable: If its server or network disk does not respond.
    """
    if is_url(uri):
        return io.BufferedReader(_Persistent(uri), BUFFER_BYTES)
    return with_retries(lambda: open(path_of(uri), "rb"), uri)


def refuse_unreachable(url: str) -> None:
    """Refuse a URL whose scheme cannot be read on this machine. Sends no request.

    Raises:
        InputError: If no file system supports it.
    """
    if url.startswith(ALWAYS_HERE):
        return
    try:
        with_retries(lambda: _remote(KEYRING.signed(url)), url)
    except OSError as error:
        raise InputError(
            f"cannot open {url}: {reason_of(error)}; s3, gs and hdfs need only credentials, other URLs need the fsspec "
            "package for their scheme (for https: pip install aiohttp)"
        ) from error


def with_retries(call: Callable[[], T], location: str) -> T:
    """Return the result of `call`. Retries while the error may be transient.

    Raises:
        OSError: If the error is permanent (raised as it was), or if a web site is still failing after all retries.
        SourceUnavailable: If another server or disk is still failing after all retries, or every file would fail.
    """
    for wait_s in (*_waits_s(location), None):
        try:
            result = call()
        except InputError:
            raise
        except Exception as error:
            if is_global(error):
                raise SourceUnavailable(
                    f"cannot read {location}: {reason_of(error)}; install what is missing or renew the credentials, "
                    "then run the same command to resume"
                ) from error
            if not is_transient(error, location):
                raise error if isinstance(error, OSError) else OSError(reason_of(error)) from error
            if wait_s is None:
                if is_web(location):  # a failing web site says nothing about the others
                    _silent_sites[_root(location)] = time.monotonic()
                    raise OSError(reason_of(error)) from error
                raise SourceUnavailable(
                    f"cannot read {location} at the moment: {reason_of(error)}; once its server or disk is back, run "
                    "the same command to resume"
                ) from error
        else:
            _silent_sites.pop(_root(location), None)
            return result
        time.sleep(wait_s)
    raise AssertionError


def _waits_s(location: str) -> tuple[float, ...]:
    if not is_web(location):
        return RETRY_WAITS_S
    if time.monotonic() - _silent_sites.get(_root(location), -_SILENT_S) < _SILENT_S:
        return ()
    return RETRY_WAITS_S[:WEB_RETRIES]


def _root(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme.lower()}://{rest.partition('/')[0]}"


@functools.cache
def _filesystem(root: str) -> Remote:
    return remote_of(root)


def _remote(url: str) -> Remote:
    return _filesystem(_root(url))


def _ask(url: str, question: Literal["children", "examine", "open", "read"], *more: Any) -> Any:
    """Call a method of a URL's file system, with the URL's credentials. Nothing else sees them."""
    signed = KEYRING.signed(url)
    return getattr(_remote(signed), question)(signed, *more)


class TooLarge(OSError):
    """A file exceeds the limit on its size."""


class NotAFile(OSError):
    """The path is a folder, a pipe or a device."""


class _Persistent(io.RawIOBase):
    """A remote file that is reopened if a read fails."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._file: BinaryIO | None = None
        self._position = 0
        with_retries(lambda: self._read(0), url)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (with_retries(self._size, self._url) if start is None else start)
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        data = with_retries(lambda: self._read(len(buffer)), self._url)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        super().close()

    def _read(self, num_bytes: int) -> bytes:
        try:
            if self._file is None:
                self._file = _ask(self._url, "open")
            if self._file.tell() != self._position:
                self._file.seek(self._position)
            return self._file.read(num_bytes)
        except BaseException:
            self._file = None
            raise

    def _size(self) -> int:
        self._read(0)
        return self._file.seek(0, io.SEEK_END)


def _examine(location: str) -> Found | None:
    if is_url(location):
        return _ask(location, "examine")
    status = os.stat(path_of(uri_of(location)))
    num_bytes, mtime_ns = known_size(status.st_size), known_time_ns(status.st_mtime_ns)
    return Found("", not stat.S_ISREG(status.st_mode), num_bytes, mtime_ns)


def _read_local(path: str, max_bytes: int) -> bytes:
    # O_NONBLOCK: opening a named pipe must not wait for a writer that never comes
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise NotAFile("is a named pipe" if stat.S_ISFIFO(found.st_mode) else "is not a regular file")
        if found.st_size > max_bytes:
            raise TooLarge(f"{found.st_size} bytes, the limit is {max_bytes}")
        return file.read()
