"""Locations: paths, `file://` URIs and URLs. Touches files only to expand a pattern."""

import glob
import os
import re
import urllib.parse
from pathlib import Path

from pipeline.errors import InputError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_ALTERNATIVES = re.compile(r"\{([^{}]*,[^{}]*)\}")


def is_url(location: str) -> bool:
    """Whether a location is a URL of anything but a local file."""
    return bool(_SCHEME.match(location)) and not location.startswith("file://")


def uri_of(location: str) -> str:
    """A location as written to the store: a URL unchanged, a path as an absolute `file://` URI."""
    if is_url(location) or location.startswith("file://"):
        return location
    path = Path(location).absolute()
    return (path.resolve() if ".." in path.parts else path).as_uri()  # the same URI from every working directory


def path_of(uri: str) -> str:
    """Local path of a `file://` URI, byte for byte: names need not be UTF-8."""
    return os.fsdecode(urllib.parse.unquote_to_bytes(uri.removeprefix("file://")))


def join_uri(parent: str, name: str) -> str:
    """URI of a name relative to a parent folder. A name that is a URL or an absolute path ignores the parent."""
    if _SCHEME.match(name):
        return name
    if name.startswith("/") or not is_url(parent):
        return (Path(path_of(parent)) / name).as_uri()
    if "." in name.split("/") or ".." in name.split("/"):
        scheme, _, rest = parent.partition("://")
        return f"{scheme}://{os.path.normpath(os.path.join(rest, name))}"
    return f"{parent.rstrip('/')}/{name}"


def expand_pattern(pattern: str) -> list[str]:
    """Expand a pattern to locations: `{000..123}` and `{a,b}` anywhere, `*` and `?` in local paths.

    Raises:
        InputError: If a local pattern matches nothing, or a range runs backwards.
    """
    found = []
    for location in _without_braces(pattern):
        if is_url(location) or not glob.has_magic(location) or Path(location).exists():
            found.append(location)
            continue
        matches = sorted(glob.glob(location, recursive=True))
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
