"""Remote files through pyarrow's or fsspec's file systems, behind one interface. Home of both; raises what they raise.

`s3://`, `gs://`, `hdfs://` and `abfs://` use pyarrow; every other scheme uses fsspec. AWS_ENDPOINT_URL_S3 or
AWS_ENDPOINT_URL selects a custom S3 server.
"""

import errno
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

from pipeline import __version__
from pipeline.source.limits import known_size, known_time_ns

ALWAYS_HERE = ("s3://", "gs://", "gcs://", "abfs://", "abfss://")
"""URLs that need no additional package."""

_NOT_IN_A_URL = re.compile(r"%(?![0-9A-Fa-f]{2})|[^!$%&'()*+,\-./0-9:;=?@A-Z_a-z~]")
_OF_PYARROW = ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")


@dataclass(frozen=True, slots=True)
class Found:
    """A file or folder on a server. Time and size are 0 if the server does not report them."""

    name: str
    is_folder: bool
    num_bytes: int
    mtime_ns: int


class Remote(Protocol):
    """The files of one server or bucket, by URL."""

    def examine(self, url: str) -> Found | None:
        """The file or folder at a URL, None if there is none."""

    def children(self, url: str) -> Iterable[Found]:
        """The direct children of a folder."""

    def open(self, url: str) -> BinaryIO:
        """Open a file. Seekable if its server supports it."""

    def read(self, url: str, max_bytes: int) -> bytes:
        """All bytes of a file, but at most `max_bytes + 1`."""


def remote_of(root: str) -> Remote:
    """The file system for URLs that begin with `root`, which is `scheme://host`."""
    scheme = root.partition("://")[0]
    if scheme in _OF_PYARROW:
        return ArrowFiles(*_arrow_filesystem(root))
    import fsspec

    if scheme not in ("http", "https"):
        return FsspecFiles(fsspec.url_to_fs(root)[0])
    import aiohttp

    # a site that hangs must not cost five minutes per image; some sites refuse clients without a User-Agent
    options = {
        "timeout": aiohttp.ClientTimeout(total=300, sock_connect=10, sock_read=30),
        "headers": {"User-Agent": f"clipsieve/{__version__}"},
        "trust_env": True,
        # escapes are sent as they are written: a signature covers them
        "requote_redirect_url": False,
        "middlewares": (_escape_redirects,),
    }
    return WebFiles(fsspec.url_to_fs(root, client_kwargs=options, encoded=True)[0])


def as_sent(url: str) -> str:
    """A web address as it is sent: what may not stand in one is escaped, and what is escaped stays as it is."""
    import yarl

    url = url.partition("#")[0]
    scheme, _, rest = url.partition("://")
    host = re.split("[/?]", rest, maxsplit=1)[0]
    known = host if host.isascii() else yarl.URL(f"{scheme}://{host}").raw_authority
    path = _NOT_IN_A_URL.sub(lambda found: quote(found.group(), safe="", errors="replace"), rest[len(host) :])
    return f"{scheme.lower()}://{known}{path}"


async def _escape_redirects(request: Any, send: Callable[[Any], Any]) -> Any:
    """Escape what may not stand in an address that a server redirects to."""
    import yarl

    request.url = yarl.URL(as_sent(str(request.url)), encoded=True)
    return await send(request)


def _arrow_filesystem(root: str) -> tuple[Any, str]:
    from pyarrow import fs

    scheme, _, host = root.partition("://")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint:
        protocol, _, address = endpoint.partition("://")
        return fs.S3FileSystem(endpoint_override=address.rstrip("/"), scheme=protocol), host
    if scheme in ("gs", "gcs"):  # by default, it would retry for a quarter of an hour
        return fs.FileSystem.from_uri(f"{root}?retry_limit_seconds=2")
    return fs.FileSystem.from_uri(root)  # for S3, detects the bucket's region


class ArrowFiles:
    """A pyarrow file system, rooted at the folder `base`."""

    def __init__(self, filesystem: Any, base: str) -> None:
        self._filesystem = filesystem
        self._base = base.rstrip("/")

    def examine(self, url: str) -> Found | None:
        """The file or folder at a URL, None if there is none."""
        return self._found(self._filesystem.get_file_info(self._path(url)))

    def children(self, url: str) -> Iterable[Found]:
        """The direct children of a folder."""
        from pyarrow.fs import FileSelector

        path = self._path(url)
        infos = self._filesystem.get_file_info(FileSelector(path))
        if any(info.path.rstrip("/") == path for info in infos):
            raise ValueError("it contains keys with an empty part (//), which pyarrow cannot read: rename them")
        return (child for info in infos if (child := self._found(info)))

    def open(self, url: str) -> BinaryIO:
        """Open a file."""
        return self._filesystem.open_input_file(self._path(url))

    def read(self, url: str, max_bytes: int) -> bytes:
        """All bytes of a file, but at most `max_bytes + 1`."""
        with self.open(url) as file:
            return file.read(min(file.size(), max_bytes + 1))

    def _path(self, url: str) -> str:
        return f"{self._base}/{url.partition('://')[2].partition('/')[2]}".rstrip("/")

    def _found(self, info: Any) -> Found | None:
        from pyarrow.fs import FileType

        if info.type == FileType.NotFound:
            return None
        # a date that does not fit has wrapped to one before 1970, when there were no such servers
        mtime_ns = max(0, known_time_ns(info.mtime_ns))
        return Found(info.base_name, info.type == FileType.Directory, known_size(info.size), mtime_ns)


class FsspecFiles:
    """An fsspec file system."""

    _NOT_FOUND = "does not exist"

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    def examine(self, url: str) -> Found | None:
        """The file or folder at a URL, None if there is none."""
        try:
            return _found(self._filesystem.info(url))
        except FileNotFoundError as error:
            _raise_what_was_hidden(error)
            return None

    def children(self, url: str) -> Iterable[Found]:
        """The direct children of a folder."""
        own = self._filesystem._strip_protocol(url).strip("/")  # some file systems also list the folder itself
        found = self._filesystem.ls(url, detail=True)
        return [_found(info) for info in found if info["name"].strip("/") != own]

    def open(self, url: str) -> BinaryIO:
        """Open a file."""
        try:
            return self._filesystem.open(url, "rb")
        except FileNotFoundError as error:
            _raise_what_was_hidden(error)
            raise FileNotFoundError(errno.ENOENT, self._NOT_FOUND) from error

    def read(self, url: str, max_bytes: int) -> bytes:
        """All bytes of a file, but at most `max_bytes + 1`."""
        with self.open(url) as file:
            return file.read(max_bytes + 1)


class WebFiles(FsspecFiles):
    """Web sites: one request per image."""

    _NOT_FOUND = "404 Not Found"

    def examine(self, url: str) -> Found | None:
        """The file at a URL, None if there is none."""
        return super().examine(as_sent(url))

    def open(self, url: str) -> BinaryIO:
        """Open a file."""
        return super().open(as_sent(url))

    def children(self, url: str) -> Iterable[Found]:
        """Refuse: the links on a web page are not a folder."""
        raise NotImplementedError("web servers do not list folders; name the images in a CSV, TSV or JSONL list")

    def read(self, url: str, max_bytes: int) -> bytes:
        """All bytes of a file, but at most `max_bytes + 1`."""
        parts, rest = [], max_bytes + 1
        # a block size of 0 means a plain GET; without a size, fsspec would first ask for it
        try:
            with self._filesystem.open(as_sent(url), "rb", block_size=0, size=1) as file:
                while rest and (part := file.read(rest)):
                    parts.append(part)
                    rest -= len(part)
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, self._NOT_FOUND) from error
        return b"".join(parts)


def _raise_what_was_hidden(error: FileNotFoundError) -> None:
    """Raise the real cause if fsspec reports another failure as a missing file."""
    cause = error.__cause__
    if cause is not None and not isinstance(cause, FileNotFoundError) and getattr(cause, "status", 0) not in (404, 410):
        raise cause


def _found(info: dict[str, Any]) -> Found:
    name = info["name"].rstrip("/").rpartition("/")[2]
    return Found(name, info["type"] == "directory", known_size(info.get("size")), _mtime_ns(info))


def _mtime_ns(info: dict[str, Any]) -> int:
    value = next((info[key] for key in ("mtime", "last_modified", "LastModified", "Last-Modified") if key in info), 0)
    with suppress(ValueError, TypeError, OverflowError):
        if isinstance(value, str):  # from an HTTP header
            value = parsedate_to_datetime(value)
        return known_time_ns((value.timestamp() if isinstance(value, datetime) else value) * 1e9)
    return 0
