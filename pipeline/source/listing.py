"""List a source from names and footers: the first stage of a run. Memory does not grow with the source."""

import fnmatch
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pipeline.errors import InputError
from pipeline.source.access.location import children, examine, map_concurrently, walk
from pipeline.source.access.naming import expand_pattern, is_url, path_of, uri_of
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats.captions import join_captions, sorted_captions
from pipeline.source.formats.folder import no_image, walk_folder
from pipeline.source.formats.table import LIST_SUFFIXES, read_list
from pipeline.source.formats.text import as_text
from pipeline.source.left_out import LeftOut
from pipeline.source.sorting import Sorted

Format = Literal["folder", "webdataset", "parquet", "list"]
_FILE_SUFFIXES = {"webdataset": ".tar", "parquet": ".parquet"}
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Listing:
    """A source's images: either entries sorted by unique key, or files sorted by key."""

    source: Source
    entries: Sorted[ImageEntry] | None = None
    captions: Sorted[tuple[str, str]] | None = None
    files: list[SourceFile] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
    num_bytes: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    """By key of a file, why it can no longer be added to a store."""

    @property
    def num_images(self) -> int | None:
        """Number of images. None for tars, which must be read to be counted."""
        if self.entries is not None:
            return len(self.entries)
        counts = [file.num_rows for file in self.files]
        return None if None in counts else sum(counts)

    def __iter__(self) -> Iterator[ImageEntry]:
        """Iterate over the entries, each with its first caption.

        Raises:
            InputError: If a key occurs twice, or a caption's key is not in the source.
        """
        entries = _refuse_repeated(self.entries or (), self.source.location)
        if self.captions is not None:
            entries = join_captions(entries, self.captions)
        prefix = self.source.key_prefix
        return (replace(entry, key=prefix + entry.key) for entry in entries) if prefix else entries


def list_source(source: Source, captions: Path | None = None) -> Listing:
    """List a source.

    Args:
        source: The source; its format may be `auto`.
        captions: TSV of key and caption, for folders.

    Raises:
        InputError: If the source is missing, refused or empty, or does not have the stated format.
    """
    listing = _list(source, captions)
    # as the plan records it: paths need not be UTF-8
    return replace(listing, source=listing.source.model_copy(update={"location": as_text(listing.source.location)}))


def _list(source: Source, captions: Path | None) -> Listing:
    location = source.location.rstrip("/") or "/"
    if not is_url(location):  # absolute, because a resumed job may start in another folder
        location = path_of(uri_of(location))
    source = source.model_copy(update={"location": location, "format": _format(location, source.format)})
    if captions and source.format != "folder":
        raise InputError(
            f"--captions is for folders only; a {source.format} source has its own captions, see --caption-column"
        )
    _refuse_strange_columns(source)
    if source.format in _FILE_SUFFIXES:
        return _list_files(source)
    source = source.model_copy(update={"columns": dict.fromkeys(source.columns, "string")})
    if source.format == "list":
        count = _Count(read_list(source))
        return Listing(source, entries=Sorted(count, _key), num_bytes=count.num_bytes)
    left_out = LeftOut()
    count = _Count(walk_folder(location, left_out))
    listing = Sorted(count, _key)
    if not len(listing):
        raise no_image(location, left_out)
    pairs = sorted_captions(listing, location, captions) if captions else None
    return Listing(source, listing, pairs, [], left_out, count.num_bytes)


class _Count:
    """Iterates over entries and adds up their bytes."""

    def __init__(self, entries: Iterator[ImageEntry]) -> None:
        self._entries = entries
        self.num_bytes = 0

    def __iter__(self) -> Iterator[ImageEntry]:
        for entry in self._entries:
            self.num_bytes += entry.num_bytes
            yield entry


def _format(location: str, asked: str) -> Format:
    if asked != "auto":
        return asked
    name = location.lower().removesuffix("/")
    if name.endswith(_COMPRESSED):  # refused later, with advice
        return "webdataset"
    suffix = os.path.splitext(name)[1]
    found = next((name for name, end in _FILE_SUFFIXES.items() if suffix == end), None)
    return found or ("list" if suffix in LIST_SUFFIXES else "folder")


def _refuse_strange_columns(source: Source) -> None:
    if source.format == "folder" and (
        source.columns or source.image_column or source.key_column or source.caption_column
    ):
        raise InputError(
            f"the folder {source.location} has no columns; remove --columns, --image-column, --key-column and "
            "--caption-column, and pass captions of a folder with --captions"
        )
    if source.format == "webdataset" and (source.image_column or source.key_column):
        raise InputError(
            f"the tars {source.location} have no image or key columns: each member is an image, and its name is the "
            "key; remove --image-column and --key-column"
        )


def _list_files(source: Source) -> Listing:
    found = sorted(_files_of(source), key=lambda pair: pair[1])
    for (one, key), (other, same) in pairwise(found):
        if key == same:
            raise InputError(
                f"source {source.location} has two files named {key!r} ({one} and {other}); name each file once, or "
                "embed them separately, each with its own --key-prefix"
            )
    for uri, key in found:
        if key.lower().endswith(_COMPRESSED):
            raise InputError(f"{uri} is compressed; decompress it to a plain .tar (images are compressed already)")
    sizes = map_concurrently(examine, [uri for uri, _ in found])
    files = [
        SourceFile(key=source.key_prefix + key, uri=uri, num_bytes=num_bytes, mtime_ns=mtime_ns)
        for (uri, key), (num_bytes, mtime_ns) in zip(found, sizes, strict=True)
    ]
    if source.format == "webdataset":
        update = {
            "columns": dict.fromkeys(source.columns, "string"),
            "caption_column": source.caption_column or "caption",
            "is_caption_column_named": source.caption_column is not None,
        }
        source = source.model_copy(update=update)
        return Listing(source, files=files, num_bytes=sum(file.num_bytes for file in files))
    return _with_footers(files, source)


def _with_footers(files: list[SourceFile], source: Source) -> Listing:
    from pipeline.source.formats.parquet import read_footer, resolve_columns, text_fault

    counted, faults = [], {}
    for file, (schema, num_rows) in zip(
        files, map_concurrently(read_footer, [file.uri for file in files]), strict=True
    ):
        found = resolve_columns(source, file.uri, schema)
        if counted and found.caption_column != source.caption_column:
            raise InputError(
                f"{file.uri} has captions in column {found.caption_column!r}, which earlier files do not have; embed "
                "them as two sources"
            )
        source = found
        fault = text_fault(source, schema)
        if fault:
            faults[file.key] = f"{file.uri}: {fault}"
        counted.append(file.model_copy(update={"num_rows": num_rows}))
    if not any(file.num_rows for file in counted):
        raise InputError(f"source {source.location} has no rows; pass Parquet files that contain images")
    return Listing(source, files=counted, num_bytes=sum(file.num_bytes for file in counted), faults=faults)


def _files_of(source: Source) -> Iterator[tuple[str, str]]:
    """Yield the URI and key of each file. Keys are relative to the folder before the location's first wildcard."""
    location, suffix = source.location, _FILE_SUFFIXES[source.format]
    places = [match for place in expand_pattern(location) for match in _matches(place)]
    fixed = re.split(r"[*?{[]", location)[0] if places != [location] else location.rstrip("/")
    root = fixed.rpartition("/")[0]
    for place in places:
        inside = list(_files_in(place, suffix))
        if not inside:
            raise InputError(f"source {place} contains no {suffix} files; check the name or --input-format")
        for path in inside:
            # if the location is a single folder, keys are relative to it
            start = place if places == [location] and path != place else root
            yield uri_of(path), as_text(path.removeprefix(start).lstrip("/"))


def _matches(place: str) -> list[str]:
    """The URLs that match a URL with `*` in its last part."""
    folder, _, pattern = place.rpartition("/")
    if "*" not in place or not is_url(place) or place.startswith("http"):
        return [place]
    names = [] if "*" in folder else [child.name for child in children(folder) if not child.name.startswith(".")]
    found = fnmatch.filter(names, pattern)
    if not found:
        raise InputError(f"source {place} matches no files; check the pattern (in URLs, only the last part can have *)")
    return [f"{folder}/{name}" for name in found]


def _files_in(place: str, suffix: str) -> Iterator[str]:
    """Yield the place itself or, if it is a folder, the files under it with this suffix, except hidden ones."""
    if is_url(place):
        if place.lower().endswith((suffix, *_COMPRESSED)) or place.startswith("http"):
            yield place
        else:
            names = (name for name, _ in walk(place))
            yield from (f"{place.rstrip('/')}/{name}" for name in names if name.lower().endswith(suffix))
    elif not os.path.isdir(place):
        yield place
    else:
        for folder, folders, names in os.walk(place, onerror=_refuse_unreadable):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if name.lower().endswith(suffix) and not name.startswith("."):
                    yield os.path.join(folder, name)


def _refuse_unreadable(error: OSError) -> None:
    raise InputError(f"cannot list {error.filename}: {error.strerror}; fix its permissions or move it away") from error


def _refuse_repeated(entries: Iterator[ImageEntry], location: str) -> Iterator[ImageEntry]:
    last = None
    for entry in entries:
        if last is not None and entry.key == last.key:
            raise InputError(
                f"source {location} has the key {entry.key!r} twice ({last.uri} and {entry.uri}); keys must be "
                "unique: remove one, or pass a column of unique keys with --key-column"
            )
        last = entry
        yield entry


def _key(entry: ImageEntry) -> str:
    return entry.key
