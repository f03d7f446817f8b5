"""Hard and symbolic links in a tar: which member each leads to, and that member's bytes.

The bytes of a link's target come before or after the link. So from the first link on, the tar is read a second time.
"""

import os
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import IO, BinaryIO, Self

from pipeline.source.access.location import open_stream
from pipeline.source.left_out import Kind

_MOST_STEPS = 40
"""More links in a row are a loop, as on Linux."""


class TarLinks:
    """Follows the links of one tar. Opens it when the first link is met."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._resources = ExitStack()
        self._archive: tarfile.TarFile | None = None
        self._by_name: Mapping[str, tarfile.TarInfo] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def target_of(self, link: tarfile.TarInfo) -> tarfile.TarInfo | Kind:
        """The file that a link leads to, or why it leads to none.

        Raises:
            tarfile.TarError, OSError, SourceUnavailable: If the tar cannot be read.
        """
        if self._archive is None:
            stream = self._resources.enter_context(_open_seekable(self._uri))
            self._archive = self._resources.enter_context(tarfile.open(fileobj=stream, mode="r:"))
            self._by_name = by_name(self._archive.getmembers())
        return follow(link, self._by_name)

    def open(self, target: tarfile.TarInfo) -> IO[bytes]:
        """Open a target."""
        return self._archive.extractfile(target)


def by_name(members: Iterable[tarfile.TarInfo]) -> dict[str, tarfile.TarInfo]:
    """Members by normalized name. Of several with one name, a file counts before a link."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in members:
        name = posixpath.normpath(member.name)
        if not (is_link(member) and name in found):
            found[name] = member
    return found


def is_link(member: tarfile.TarInfo) -> bool:
    """Whether a member is a hard or symbolic link."""
    return member.islnk() or member.issym()


def is_repeat(member: tarfile.TarInfo) -> bool:
    """Whether a member is a hard link to its own name: `tar` writes one if it is given a file twice."""
    return member.islnk() and posixpath.normpath(member.linkname) == posixpath.normpath(member.name)


def follow(link: tarfile.TarInfo, members: Mapping[str, tarfile.TarInfo]) -> tarfile.TarInfo | Kind:
    """The file that a link leads to over any number of links, or why it leads to none."""
    path = _next(link)
    for _ in range(_MOST_STEPS):
        found = members.get(path)
        if found is None:
            step = _through_linked_folder(path, members)
        elif is_link(found):
            step = _next(found)
        else:
            return found if found.isfile() else Kind.DANGLING_LINK
        if step is None:
            is_outside = path.startswith(("/", "../")) or path == ".."
            return Kind.LINK_OUT_OF_TAR if is_outside else Kind.DANGLING_LINK
        path = step
    return Kind.LINK_IN_LOOP


def _next(link: tarfile.TarInfo) -> str:
    folder = "" if link.islnk() else posixpath.dirname(link.name)  # only symbolic links are relative to their folder
    return posixpath.normpath(posixpath.join(folder, link.linkname))


def _through_linked_folder(path: str, members: Mapping[str, tarfile.TarInfo]) -> str | None:
    folder, rest = posixpath.split(path)
    while folder not in ("", "/"):
        found = members.get(folder)
        if found is not None and found.issym():
            return posixpath.normpath(posixpath.join(_next(found), rest))
        folder, last = posixpath.split(folder)
        rest = posixpath.join(last, rest)
    return None


def _open_seekable(uri: str) -> BinaryIO:
    """The file itself, or a temporary copy if its server sends it only from the beginning."""
    stream = open_stream(uri)
    try:
        stream.seek(-1, os.SEEK_END)
        stream.read(1)
        stream.seek(0)
    except OSError:
        stream.close()
    else:
        return stream
    copy = tempfile.TemporaryFile()
    with open_stream(uri) as stream:
        shutil.copyfileobj(stream, copy, 2**20)
    copy.seek(0)
    return copy
