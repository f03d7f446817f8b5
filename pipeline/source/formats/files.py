"""Find the tars or Parquet files of a source: by name, by pattern, or in a folder."""

import fnmatch
import os
import re
from collections.abc import Iterator
from dataclasses import replace

from pipeline.errors import InputError
from pipeline.source.access.credentials import KEYRING
from pipeline.source.access.location import children
from pipeline.source.access.naming import expand_pattern, is_url, is_web, path_of, uri_of, without_parameters
from pipeline.source.entry import Source
from pipeline.source.formats.folder import image_rules
from pipeline.source.formats.text import as_text
from pipeline.source.formats.tree import Rules, walk
from pipeline.source.left_out import Kind, LeftOut

FILE_SUFFIXES = {"webdataset": ".tar", "parquet": ".parquet"}
COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


def files_of(source: Source, left_out: LeftOut) -> Iterator[tuple[str, str]]:
    """Yield the URI and key of each file. Keys are relative to the folder before the location's first wildcard."""
    location, suffix = source.location, FILE_SUFFIXES[source.format]
    rules = rules_of(source)
    root = re.split(r"[*?{[]", location)[0].rpartition("/")[0]
    signed = expand_pattern(KEYRING.signed(location), lambda pattern: _walked(pattern, root, rules, left_out))
    places = [match for place in map(KEYRING.take, signed) for match in _matches(place)]
    if places == [location]:
        root = without_parameters(location).rstrip("/").rpartition("/")[0]
    for place in places:
        rules_here = rules if places == [location] else _below(rules, root, place)
        left_out_here = LeftOut()
        inside = list(_files_in(place, suffix, rules_here, left_out_here))
        left_out.add_all(left_out_here)
        if not inside and Kind.EXCLUDED not in left_out_here.counts:
            left = f" (left out: {left_out.describe()})" if left_out else ""
            raise InputError(f"source {place} contains no {suffix} files{left}; check the name or --input-format")
        for path in inside:
            # if the location is a single folder, keys are relative to it
            start = place if places == [location] and path != place else root
            key = as_text(path.removeprefix(start).lstrip("/"))
            if rules.excludes_within(key):
                left_out.add(Kind.EXCLUDED, key)
            else:
                yield uri_of(path), key


def _below(rules: Rules, root: str, place: str) -> Rules:
    """The rules for a walk of a folder that is only a part of the source."""
    inside = as_text(place.removeprefix(root)).strip("/")
    return replace(rules, prefix=f"{inside}/" if inside else "")


def _walked(pattern: str, source_root: str, rules: Rules, left_out: LeftOut) -> list[str]:
    """The files that match a local pattern with `**`, or are in a folder that does."""
    root = re.split(r"[*?[]", pattern)[0].rpartition("/")[0]
    patterns = pattern[len(root) + 1 :].split("/")

    def is_match(key: str) -> bool:
        parts = key.split("/")
        folders = (parts[:end] for end in range(1, len(parts)))
        return _fits(parts, patterns) or (rules.wants(key) and any(_fits(folder, patterns) for folder in folders))

    found = walk(root or "/", replace(_below(rules, source_root, root), wants=lambda name: True), left_out)
    return [path_of(entry.uri) for entry in found if is_match(entry.key)]


def _fits(parts: list[str], patterns: list[str]) -> bool:
    """Whether a path matches a pattern, part by part. `**` is any number of folders."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_fits(parts[start:], patterns[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:])


def _matches(place: str) -> list[str]:
    """The URLs that match a URL with `*` in its last part."""
    folder, _, pattern = place.rpartition("/")
    if "*" not in place or not is_url(place) or is_web(place):
        return [place]
    names = [] if "*" in folder else [child.name for child in children(folder) if not child.name.startswith(".")]
    found = fnmatch.filter(names, pattern)
    if not found:
        raise InputError(f"source {place} matches no files; check the pattern (in URLs, only the last part can have *)")
    return [f"{folder}/{name}" for name in found]


def _files_in(place: str, suffix: str, rules: Rules, left_out: LeftOut) -> Iterator[str]:
    """Yield the place itself or, if it is a folder, the files under it that the rules take."""
    if is_url(place):
        is_file = is_web(place) or place.lower().endswith((suffix, *COMPRESSED))
    else:
        is_file = not os.path.isdir(place)
    if is_file:
        yield place
    else:
        found = walk(place, rules, left_out)
        yield from (entry.uri if is_url(place) else path_of(entry.uri) for entry in found)


def rules_of(source: Source) -> Rules:
    """What a walk of a source's folders takes."""
    if source.format == "folder":
        return image_rules(source)
    suffix = FILE_SUFFIXES.get(source.format, "")
    return Rules(lambda name: name.lower().endswith(suffix), Kind.OTHER_FORMAT, source.exclude, source.follow_links)
