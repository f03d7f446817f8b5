"""Open, read, examine and list what a path or a URL names.

What a server refuses or does not have is an answer. What it fails to answer is asked again, for about half a minute,
and then it is its fault, not the image's; so is what would befall every image: bad credentials, a missing library.
"""

import functools
import io
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, TypeVar

from pipeline.errors import InputError, SourceUnavailable
from pipeline.source.access.failures import is_global, is_transient, reason_of
from pipeline.source.access.naming import is_url, path_of, uri_of
from pipeline.source.access.remote import ALWAYS_HERE, Found, Remote, remote_of

T = TypeVar("T")
S = TypeVar("S")
RETRY_WAITS_S = (0.5, 1, 2, 4, 8, 16)
WEB_RETRIES = 4
"""Web sites are given up earlier: of thousands in a list, some are always gone."""

THREADS = 16
"""Questions to a server under way at once, while listing."""

BUFFER_BYTES = 2**22
"""A server is asked for at least so much of a file: each request takes its time."""

_SILENT_S = 600.0
_silent_sites: dict[str, float] = {}


def examine(location: str) -> tuple[int, int]:
    """Bytes and mtime in ns (0 where the server does not tell) of one file.

    Raises:
        InputError: If it is not there, is no file, or is refused.
    """
    try:
        found = with_retries(lambda: _examine(location), location)
    except OSError as error:
        raise InputError(
            f"cannot examine {location}: {reason_of(error)}; check the name and who may read it"
        ) from error
    if found is None:
        raise InputError(f"source {location} does not exist; check the name and who may read it")
    if found.is_folder:
        raise InputError(f"source {location} is no file; name a file, or check --input-format")
    return found.num_bytes, found.mtime_ns


def children(url: str) -> Iterable[Found]:
    """All that is directly in a remote folder.

    Raises:
        InputError: If the folder, or its bucket, does not exist or is refused.
    """
    try:
        return with_retries(lambda: _remote(url).children(url), url)
    except OSError as error:
        raise InputError(f"cannot list {url}: {reason_of(error)}; check the name and who may read it") from error


def walk(url: str) -> Iterator[tuple[str, Found]]:
    """Each file under a remote folder, by its path there, in no order; hidden files and folders are left out.

    Raises:
        InputError: If a folder, or its bucket, does not exist or is refused.
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
                if found.name.startswith("."):
                    continue
                name = f"{folder}/{found.name}"
                if found.is_folder:
                    todo.append(name)
                else:
                    yield name[1:], found


def map_concurrently(call: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """What `call` gives for each item, in their order; several at once, for calls that wait for a server."""
    with ThreadPoolExecutor(THREADS) as threads:
        try:
            yield from threads.map(call, items)
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def read_bytes(uri: str, max_bytes: int) -> bytes:
    """All bytes of a file.

    Raises:
        TooLarge: If there are more than `max_bytes`.
        OSError: If it is not there, is refused, or (local files) cannot be read.
        SourceUnavailable: If its server does not answer, or a network disk is away.
    """
    if not is_url(uri):
        return with_retries(lambda: _read_local(path_of(uri), max_bytes), uri)
    data = with_retries(lambda: _remote(uri).read(uri, max_bytes), uri)
    if len(data) > max_bytes:
        raise TooLarge(f"more than {max_bytes} bytes")
    return data


def open_stream(uri: str) -> BinaryIO:
    """Open a file for reading and seeking; its reads are tried again as `with_retries` does.

    Raises:
        OSError: If it is not there, is refused, or (local files) cannot be read.
        SourceUnavailable: If its server does not answer, or a network disk is away.
    """
    if is_url(uri):
        return io.BufferedReader(_Persistent(uri), BUFFER_BYTES)
    return with_retries(lambda: open(path_of(uri), "rb"), uri)


def refuse_unreachable(url: str) -> None:
    """Refuse a URL of a kind that cannot be read here at all; asks no server.

    Raises:
        InputError: If no file system takes it.
    """
    if url.startswith(ALWAYS_HERE):
        return
    try:
        with_retries(lambda: _remote(url), url)
    except OSError as error:
        raise InputError(
            f"cannot reach {url}: {reason_of(error)}; s3, gs and hdfs need nothing but credentials, other URLs the "
            "fsspec package of their scheme (https: pip install aiohttp)"
        ) from error


def with_retries(call: Callable[[], T], location: str) -> T:
    """The result of `call`, tried again while the failure is one that passes.

    Raises:
        OSError: What does not pass, as it was raised; what does not pass in time, of web sites.
        SourceUnavailable: If it did not pass in time, or says nothing of this one file.
    """
    for wait_s in (*_waits_s(location), None):
        try:
            result = call()
        except InputError:
            raise
        except Exception as error:
            if is_global(error):
                raise SourceUnavailable(
                    f"{location} cannot be read: {reason_of(error)}; install what is missing or renew the credentials, "
                    "and run the same command to go on"
                ) from error
            if not is_transient(error, location):
                raise error if isinstance(error, OSError) else OSError(reason_of(error)) from error
            if wait_s is None:
                if location.startswith("http"):  # one web site among many says nothing about the others
                    _silent_sites[_root(location)] = time.monotonic()
                    raise OSError(reason_of(error)) from error
                raise SourceUnavailable(
                    f"{location} cannot be read now: {reason_of(error)}; when its server or disk answers again, run "
                    "the same command to go on"
                ) from error
        else:
            _silent_sites.pop(_root(location), None)
            return result
        time.sleep(wait_s)
    raise AssertionError


def _waits_s(location: str) -> tuple[float, ...]:
    if not location.startswith("http"):
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


class TooLarge(OSError):
    """A file is larger than its reader is ready to hold."""


class NotAFile(OSError):
    """What is to be read is a folder, a pipe or a device."""


class _Persistent(io.RawIOBase):
    """A remote file, opened anew where a read fails."""

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
                self._file = _remote(self._url).open(self._url)
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
        return _remote(location).examine(location)
    status = os.stat(path_of(uri_of(location)))
    return Found("", not stat.S_ISREG(status.st_mode), status.st_size, status.st_mtime_ns)


def _read_local(path: str, max_bytes: int) -> bytes:
    # O_NONBLOCK: opening a named pipe must not wait for a writer that never comes
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise NotAFile("is a named pipe" if stat.S_ISFIFO(found.st_mode) else "is no regular file")
        if found.st_size > max_bytes:
            raise TooLarge(f"{found.st_size} bytes, the limit is {max_bytes}")
        return file.read()
