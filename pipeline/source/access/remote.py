"""What is behind a URL: pyarrow's file systems and fsspec's, behind one face. Home of both; raises what they raise.

`s3://`, `gs://`, `hdfs://` and `abfs://` are pyarrow's; any other scheme is asked of fsspec. An S3 server of one's own
is named by AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, Protocol

from pipeline import __version__

ALWAYS_HERE = ("s3://", "gs://", "gcs://", "abfs://", "abfss://")
"""URLs that need no other package."""

_OF_PYARROW = ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")


@dataclass(frozen=True, slots=True)
class Found:
    """A file or folder of a server; time and size are 0 where it does not tell."""

    name: str
    is_folder: bool
    num_bytes: int
    mtime_ns: int


class Remote(Protocol):
    """Files of one server, or bucket, by their URLs."""

    def examine(self, url: str) -> Found | None:
        """What is there, if anything."""

    def children(self, url: str) -> Iterable[Found]:
        """All that is directly in a folder."""

    def open(self, url: str) -> BinaryIO:
        """Open a file; seeks, if its server can."""

    def read(self, url: str, max_bytes: int) -> bytes:
        """All bytes of a file, or one more than `max_bytes` of them."""


def remote_of(root: str) -> Remote:
    """Who answers for the URLs that begin with `scheme://host`."""
    scheme = root.partition("://")[0]
    if scheme in _OF_PYARROW:
        return ArrowFiles(*_arrow_filesystem(root))
    import fsspec

    if scheme not in ("http", "https"):
        return FsspecFiles(fsspec.url_to_fs(root)[0])
    import aiohttp

    # a site that hangs must not cost five minutes an image; some sites refuse clients without a name
    timeout = aiohttp.ClientTimeout(total=300, sock_connect=10, sock_read=30)
    options = {"timeout": timeout, "headers": {"User-Agent": f"clipsieve/{__version__}"}, "trust_env": True}
    return WebFiles(fsspec.url_to_fs(root, client_kwargs=options)[0])


def _arrow_filesystem(root: str) -> tuple[Any, str]:
    from pyarrow import fs

    scheme, _, host = root.partition("://")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint:
        protocol, _, address = endpoint.partition("://")
        return fs.S3FileSystem(endpoint_override=address.rstrip("/"), scheme=protocol), host
    if scheme in ("gs", "gcs"):  # left alone, it would ask again for a quarter of an hour
        return fs.FileSystem.from_uri(f"{root}?retry_limit_seconds=2")
    return fs.FileSystem.from_uri(root)  # of S3, finds out in which region the bucket is


class ArrowFiles:
    """A file system of pyarrow, from the folder `base` on."""

    def __init__(self, filesystem: Any, base: str) -> None:
        self._filesystem = filesystem
        self._base = base.rstrip("/")

    def examine(self, url: str) -> Found | None:
        """What is there, if anything."""
        return self._found(self._filesystem.get_file_info(self._path(url)))

    def children(self, url: str) -> Iterable[Found]:
        """All that is directly in a folder."""
        from pyarrow.fs import FileSelector

        path = self._path(url)
        infos = self._filesystem.get_file_info(FileSelector(path))
        if any(info.path.rstrip("/") == path for info in infos):
            raise ValueError("keys in it have an empty part (//), and pyarrow cannot read those: rename them")
        return (child for info in infos if (child := self._found(info)))

    def open(self, url: str) -> BinaryIO:
        """Open a file."""
        return self._filesystem.open_input_file(self._path(url))

    def read(self, url: str, max_bytes: int) -> bytes:
        """All bytes of a file, or one more than `max_bytes` of them."""
        with self.open(url) as file:
            return file.read(min(file.size(), max_bytes + 1))

    def _path(self, url: str) -> str:
        return f"{self._base}/{url.partition('://')[2].partition('/')[2]}".rstrip("/")

    def _found(self, info: Any) -> Found | None:
        from pyarrow.fs import FileType

        if info.type == FileType.NotFound:
            return None
        return Found(info.base_name, info.type == FileType.Directory, info.size or 0, info.mtime_ns or 0)


class FsspecFiles:
    """A file system of fsspec."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    def examine(self, url: str) -> Found | None:
        """What is there, if anything."""
        try:
            return _found(self._filesystem.info(url))
        except FileNotFoundError as error:
            _raise_what_was_hidden(error)
            return None

    def children(self, url: str) -> Iterable[Found]:
        """All that is directly in a folder."""
        own = self._filesystem._strip_protocol(url).strip("/")  # some list the folder itself as well
        found = self._filesystem.ls(url, detail=True)
        return [_found(info) for info in found if info["name"].strip("/") != own]

    def open(self, url: str) -> BinaryIO:
        """Open a file."""
        try:
            return self._filesystem.open(url, "rb")
        except FileNotFoundError as error:
            _raise_what_was_hidden(error)
            raise

    def read(self, url: str, max_bytes: int) -> bytes:
        """All bytes of a file, or one more than `max_bytes` of them."""
        with self.open(url) as file:
            return file.read(max_bytes + 1)


class WebFiles(FsspecFiles):
    """Web sites: one request an image."""

    def children(self, url: str) -> Iterable[Found]:
        """Refuse: the links on a page are no folder."""
        raise NotImplementedError("web servers do not list folders; name the images in a CSV, TSV or JSONL list")

    def read(self, url: str, max_bytes: int) -> bytes:
        """All bytes of a file, or one more than `max_bytes` of them."""
        parts, rest = [], max_bytes + 1
        # a block size of 0 is a plain GET; without any size it would be asked for first
        with self._filesystem.open(url, "rb", block_size=0, size=1) as file:
            while rest and (part := file.read(rest)):
                parts.append(part)
                rest -= len(part)
        return b"".join(parts)


def _raise_what_was_hidden(error: FileNotFoundError) -> None:
    """Raise the reason for which fsspec says that something is not there, where it is another one."""
    cause = error.__cause__
    if cause is not None and not isinstance(cause, FileNotFoundError) and getattr(cause, "status", 0) not in (404, 410):
        raise cause


def _found(info: dict[str, Any]) -> Found:
    name = info["name"].rstrip("/").rpartition("/")[2]
    return Found(name, info["type"] == "directory", info.get("size") or 0, _mtime_ns(info))


def _mtime_ns(info: dict[str, Any]) -> int:
    value = next((info[key] for key in ("mtime", "last_modified", "LastModified", "Last-Modified") if key in info), 0)
    with suppress(ValueError, TypeError):
        if isinstance(value, str):  # of HTTP
            value = parsedate_to_datetime(value)
        return int((value.timestamp() if isinstance(value, datetime) else value) * 1e9)
    return 0
