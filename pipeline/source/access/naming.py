"""Locations: paths, `file://` URIs and URLs. Touches files only to expand a pattern."""

import glob
import os
import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import InputError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_MEANT_AS_URL = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # Path() leaves only one of two slashes
_FILE = re.compile(r"file:(?=/)(?://(?:localhost(?=/))?)?", re.IGNORECASE)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_ALTERNATIVES = re.compile(r"\{([^{}]*,[^{}]*)\}")


def is_url(location: str) -> bool:
    """Whether a location is a URL of anything but a local file."""
    return bool(_SCHEME.match(location)) and location[:7].lower() != "file://"


def is_web(location: str) -> bool:
    """Whether a location is an address on the web, where `?` begins parameters. In other URLs, it is part of a name."""
    return location[:8].lower().startswith(("http://", "https://"))


def without_parameters(location: str) -> str:
    """A location up to the parameters of a web address: the part that holds its folder, its name and its suffix."""
    return re.split("[?#]", location, maxsplit=1)[0] if is_web(location) else location


def folder_of(uri: str) -> str:
    """URI of the folder that a file is in."""
    return without_parameters(uri).rpartition("/")[0]


def suffix_of(location: str) -> str:
    """The suffix of a location's name, in lower case."""
    return os.path.splitext(without_parameters(location))[1].lower()


def uri_of(location: str) -> str:
    """A location as written to the store: a URL unchanged, a path as an absolute `file://` URI."""
    if is_url(location):
        return location
    if location[:6].lower().startswith("file:/"):
        return f"file://{_FILE.sub('', location, count=1)}"
    path = Path(location).absolute()
    return (path.resolve() if ".." in path.parts else path).as_uri()  # the same URI from every working directory


def path_of(uri: str) -> str:
    """Local path of a `file://` URI, byte for byte: names need not be UTF-8."""
    return os.fsdecode(urllib.parse.unquote_to_bytes(_FILE.sub("", uri, count=1)))


def local_path(text: str) -> Path:
    """The path that a person wrote in a setting: `~` is the home folder, and a `file://` URI is a path.

    Raises:
        ValueError: If it is a URL, or names the home folder of nobody.
    """
    if _MEANT_AS_URL.match(text):
        raise ValueError(
            "expected a path on this machine, found a URL; only the SOURCE of `clipsieve embed` can be a URL: give a "
            "local folder or file, or mount the bucket or share"
        )
    return Path(expand_home(path_of(text) if text[:6].lower().startswith("file:/") else text))


def expand_home(text: str) -> str:
    """A path or pattern with its leading `~` or `~user` expanded.

    Raises:
        ValueError: If there is no such home folder.
    """
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ValueError(
            f"there is no home folder {text.split('/')[0]}; write ./{text} for a name that begins with ~"
        ) from None


def join_uri(parent: str, name: str) -> str:
    """URI of a name relative to a parent folder. A name that is a URL or an absolute path ignores the parent."""
    if _SCHEME.match(name):
        return name
    if name.startswith("/") or not is_url(parent):
        return (Path(path_of(parent)) / name).as_uri()
    path, parameters = name, ""
    if is_web(parent):
        path = re.split("[?#]", name, maxsplit=1)[0]
        parameters = name[len(path) :]
    if "." in path.split("/") or ".." in path.split("/"):
        scheme, _, rest = parent.partition("://")
        host, _, folder = rest.partition("/")
        return f"{scheme}://{host}{os.path.normpath(f'/{folder}/{path}').replace('//', '/')}{parameters}"
    return f"{parent.rstrip('/')}/{name}"


def expand_pattern(pattern: str, walk: Callable[[str], list[str]]) -> list[str]:
    """Expand a pattern to locations: `{000..123}` and `{a,b}` anywhere, `*` and `?` in local paths.

    Args:
        pattern: The pattern.
        walk: Finds the matches of a local pattern with `**`. Python's `glob` would follow every link, in loops too.

    Raises:
        InputError: If a local pattern matches nothing, or a range runs backwards.
    """
    found = []
    for location in _without_braces(pattern):
        if is_url(location) or not glob.has_magic(location) or Path(location).exists():
            found.append(location)
            continue
        matches = sorted(walk(location) if "**" in location else glob.glob(location))
        if not matches:
            raise InputError(f"source {location} matches no files; check the pattern")
        found += matches
    return found


def _without_braces(pattern: str) -> list[str]:
    found = _RANGE.search(pattern)
    if found:
        first, last = found.groups()
        if int(first) > int(last):
            raise InputError(f"source {pattern}: the range {found.group()} is empty; write {{{last}..{first}}}")
        middles = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    else:
        found = _ALTERNATIVES.search(pattern)
        if not found:
            return [pattern]
        middles = found.group(1).split(",")
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [head + middle + rest for middle in middles for rest in _without_braces(tail)]
