"""Walk a folder, on disk or behind a URL: one way for every format. Opens no file.

Hidden files and folders, and those that a NAS or an archiver made, are left out, as are those that `--exclude` names.
Links to files are followed. Links to folders are not, because they can loop, unless asked for: then each folder is
listed once, by its real path if that is in the source, else by the first link to it in the order of keys. Whatever is
left out is counted.
"""

import fnmatch
import heapq
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote_from_bytes

from pipeline.errors import InputError
from pipeline.source.access.location import walk as walk_remote
from pipeline.source.access.naming import is_url, path_of, uri_of
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.text import as_text
from pipeline.source.left_out import Kind, LeftOut
from pipeline.source.limits import known_size, known_time_ns

LITTER = frozenset(
    [
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
        *("$recycle.bin", "system volume information", "__macosx", "lost+found"),
    ]
)
"""Folders, in lower case, that file servers, Windows and macOS make. They hold thumbnails and deleted files."""


@dataclass(frozen=True)
class Rules:
    """What a walk takes: files that `wants` accepts by name. Others count as `otherwise`."""

    wants: Callable[[str], bool]
    otherwise: Kind
    exclude: tuple[str, ...] = ()
    follow_links: bool = False
    prefix: str = ""
    """What keys are to be preceded by, to be paths from the source: it can have several folders."""

    def passes_over(self, key: str, name: str) -> Kind | None:
        """Why a file or folder is left out, with all that is in it; None if it is not."""
        if name.startswith("."):
            return Kind.HIDDEN
        if name.lower() in LITTER:
            return Kind.LITTER
        return Kind.EXCLUDED if self.excludes(key, name) else None

    def excludes(self, key: str, name: str) -> bool:
        """Whether a pattern names a file or folder: by its name, or by its key if there is a / in the pattern."""
        by_name, by_key = self._patterns
        return bool((by_name and by_name.match(name)) or (by_key and by_key.match(self.prefix + key)))

    def excludes_within(self, key: str) -> bool:
        """Whether a pattern names a file, or a folder that it is in."""
        return bool(self.exclude) and any(self.excludes(*place) for place in _places(key))

    def leaves_out(self, key: str) -> bool:
        """Whether a walk leaves out a file, or a folder that it is in."""
        return any(self.passes_over(*place) for place in _places(key))

    @cached_property
    def _patterns(self) -> tuple[re.Pattern | None, re.Pattern | None]:
        plain = [pattern.rstrip("/").removeprefix("./") for pattern in self.exclude]
        return _any_of(p for p in plain if "/" not in p), _any_of(p.lstrip("/") for p in plain if "/" in p)


def walk(location: str, rules: Rules, left_out: LeftOut) -> Iterator[ImageEntry]:
    """Yield the files of a folder that the rules take, in no order. Keys are relative to the folder.

    Raises:
        InputError: If the folder is missing or cannot be read.
    """
    if is_url(location):
        return _walk_remote(location.rstrip("/"), rules, left_out)
    return _Disk(path_of(uri_of(location)), rules, left_out).walk()


def _walk_remote(root: str, rules: Rules, left_out: LeftOut) -> Iterator[ImageEntry]:
    def enters(key: str, name: str) -> bool:
        kind = rules.passes_over(key, name)
        if kind:
            left_out.add(kind, key)
        return kind is None

    for key, found in walk_remote(root, enters):
        if rules.wants(found.name):
            yield ImageEntry(key, f"{root}/{key}", found.num_bytes, found.mtime_ns)
        else:
            left_out.add(rules.otherwise, key)


class _Disk:
    """A walk on disk. Folders are named by their path from the root, which is empty or ends with /."""

    def __init__(self, root: str, rules: Rules, left_out: LeftOut) -> None:
        self._root, self._rules, self._left_out = root, rules, left_out
        self._links: list[tuple[str, str]] = []  # a heap of (key, path from the root)
        self._seen: set[tuple[int, int]] = set()

    def walk(self) -> Iterator[ImageEntry]:
        if not os.path.isdir(self._root):
            what = "is not a folder" if os.path.lexists(self._root) else "does not exist"
            raise InputError(f"source {self._root} {what}; pass a folder of images")
        yield from self._below("")
        while self._links:
            key, folder = heapq.heappop(self._links)
            if not self._rules.follow_links:
                self._left_out.add(Kind.LINKED_FOLDER, key)
            elif self._identity(folder) in self._seen:
                self._left_out.add(Kind.REPEATED_FOLDER, key)
            else:
                yield from self._below(f"{folder}/")

    def _below(self, start: str) -> Iterator[ImageEntry]:
        folders = [start]
        while folders:
            relative = folders.pop()
            path = os.path.join(self._root, relative)
            # strings are much faster than one Path per file
            key, uri = as_text(relative), f"file://{_quoted(path.rstrip('/'))}/"
            if self._rules.follow_links and not self._is_first_visit(relative, key):
                continue
            try:
                with os.scandir(path) as found:
                    for item in found:
                        name = as_text(item.name)
                        kind = self._rules.passes_over(key + name, name)
                        if kind:
                            self._left_out.add(kind, key + name)
                        elif item.is_dir(follow_symlinks=False):
                            folders.append(f"{relative}{item.name}/")
                        elif item.is_symlink() and os.path.isdir(item.path):
                            heapq.heappush(self._links, (key + name, relative + item.name))
                        elif self._rules.wants(name):
                            yield _entry(item, key + name, uri)
                        else:
                            self._left_out.add(self._rules.otherwise, key + name)
            except OSError as error:
                raise InputError(
                    f"cannot list {path.rstrip('/')}: {error.strerror}; fix its permissions or move it away"
                ) from error

    def _is_first_visit(self, relative: str, key: str) -> bool:
        identity = self._identity(relative)
        if identity in self._seen:  # a folder below a link that an earlier link leads to as well
            self._left_out.add(Kind.REPEATED_FOLDER, key.rstrip("/"))
            return False
        self._seen.add(identity)
        return True

    def _identity(self, relative: str) -> tuple[int, int]:
        path = os.path.join(self._root, relative)
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(f"cannot list {path}: {error.strerror}; fix its permissions or move it away") from error
        return status.st_dev, status.st_ino


def _entry(item: os.DirEntry, key: str, folder_uri: str) -> ImageEntry:
    try:
        status = item.stat()
        num_bytes, mtime_ns = known_size(status.st_size), known_time_ns(status.st_mtime_ns)
    except OSError:  # for example a dangling link; decoding gives it a row with the reason
        num_bytes = mtime_ns = 0
    return ImageEntry(key, folder_uri + _quoted(item.name), num_bytes, mtime_ns)


def _quoted(path: str) -> str:
    return quote_from_bytes(os.fsencode(path))


def _places(key: str) -> Iterator[tuple[str, str]]:
    """Key and name of a file and of the folders that it is in."""
    parts = key.lstrip("/").split("/")  # patterns begin without a slash too
    return (("/".join(parts[:end]), parts[end - 1]) for end in range(1, len(parts) + 1))


def _any_of(patterns: Iterator[str]) -> re.Pattern | None:
    alternatives = [fnmatch.translate(pattern) for pattern in patterns]
    return re.compile("|".join(alternatives)) if alternatives else None
