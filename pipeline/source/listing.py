"""What a source holds, told from names and footers: the first stage of a run. Memory does not grow with the source."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pipeline.errors import InputError
from pipeline.source.captions import iterate_captions, join_captions
from pipeline.source.entry import ImageEntry, SourceFile, SourceSpec
from pipeline.source.folder import no_image, walk_folder
from pipeline.source.location import children, examine, expanded, is_url, joined, path_of, uri_of
from pipeline.source.sorting import Sorted
from pipeline.source.table import LIST_SUFFIXES, read_list

Format = Literal["folder", "webdataset", "parquet", "list"]
_FILE_SUFFIXES = {"webdataset": ".tar", "parquet": ".parquet"}


@dataclass(frozen=True)
class Listing:
    """A source's images, as entries in the order of their unique keys, or as files in the order of theirs."""

    spec: SourceSpec
    entries: Sorted[ImageEntry] | None = None
    captions: Sorted[tuple[str, str]] | None = None
    files: list[SourceFile] = field(default_factory=list)
    num_ignored: int = 0
    num_bytes: int = 0

    @property
    def num_images(self) -> int | None:
        """Images, None where tars would have to be read to count them."""
        if self.entries is not None:
            return len(self.entries)
        counts = [file.num_rows for file in self.files]
        return None if None in counts else sum(counts)

    def __iter__(self) -> Iterator[ImageEntry]:
        """The entries, each with its first caption.

        Raises:
            InputError: If a key comes twice, or a caption's key never.
        """
        entries = _refuse_repeated(self.entries or (), self.spec.location)
        if self.captions is not None:
            entries = join_captions(entries, self.captions)
        prefix = self.spec.key_prefix
        return (replace(entry, key=prefix + entry.key) for entry in entries) if prefix else entries


def list_source(spec: SourceSpec, captions: Path | None = None) -> Listing:
    """List a source.

    Args:
        spec: The source; its format may be `auto`.
        captions: TSV of key and caption, for folders.

    Raises:
        InputError: If the source is missing, refused, empty or not what it is said to be.
    """
    location = spec.location
    if not is_url(location):  # as recorded: absolute, for a resumed job may start elsewhere
        location = path_of(uri_of(location))
    spec = spec.model_copy(update={"location": location, "format": _format(location, spec.format)})
    if captions and spec.format != "folder":
        raise InputError(f"--captions is for folders; a {spec.format} source carries its own, see --caption-column")
    if spec.format in _FILE_SUFFIXES:
        return _list_files(spec)
    spec = spec.model_copy(update={"columns": dict.fromkeys(spec.columns, "string")})
    if spec.format == "list":
        count = _Count(read_list(spec))
        return Listing(spec, entries=Sorted(count, _key), num_bytes=count.num_bytes)
    if spec.columns or spec.image_column or spec.key_column:
        raise InputError("a folder has no columns; --columns, --image-column and --key-column are for other sources")
    count = _Count(walk_folder(location))
    listing = Sorted(count, _key)
    if not len(listing):
        raise no_image(location, count.num_ignored)
    pairs = Sorted(iterate_captions(captions), lambda pair: pair[0]) if captions else None
    if pairs is not None and not len(pairs):
        raise InputError(f"captions {captions} are empty; expected one `key TAB caption` a line")
    return Listing(spec, listing, pairs, [], count.num_ignored, count.num_bytes)


class _Count:
    """Passes entries on and counts them."""

    def __init__(self, entries: Iterator[ImageEntry | None]) -> None:
        self._entries = entries
        self.num_ignored = 0
        self.num_bytes = 0

    def __iter__(self) -> Iterator[ImageEntry]:
        for entry in self._entries:
            if entry is None:
                self.num_ignored += 1
                continue
            self.num_bytes += entry.num_bytes
            yield entry


def _format(location: str, asked: str) -> Format:
    if asked != "auto":
        return asked
    suffix = os.path.splitext(location)[1].lower()
    found = next((name for name, end in _FILE_SUFFIXES.items() if suffix == end), None)
    return found or ("list" if suffix in LIST_SUFFIXES else "folder")


def _list_files(spec: SourceSpec) -> Listing:
    files = []
    for uri, key in _files_of(spec):
        if os.path.splitext(key)[1].lower() in (".gz", ".tgz", ".zst", ".bz2", ".xz"):
            raise InputError(f"{uri} is compressed; images gain nothing by it: unpack it to a plain .tar")
        num_bytes, mtime_ns = examine(uri)
        file = SourceFile(key=spec.key_prefix + key, uri=uri, num_bytes=num_bytes, mtime_ns=mtime_ns)
        if spec.format == "parquet":
            from pipeline.source.parquet import with_footer

            file, spec = with_footer(file, spec)
        files.append(file)
    if spec.format == "webdataset":
        spec = spec.model_copy(update={"columns": dict.fromkeys(spec.columns, "string")})
    files.sort(key=lambda file: file.key)
    for one, other in pairwise(files):
        if one.key == other.key:
            raise InputError(f"source {spec.location} names {one.uri} twice; name every file once")
    if spec.format == "parquet" and not any(file.num_rows for file in files):
        raise InputError(f"source {spec.location} has no row; give Parquet files of images")
    return Listing(spec, files=files, num_bytes=sum(file.num_bytes for file in files))


def _files_of(spec: SourceSpec) -> Iterator[tuple[str, str]]:
    """URI and key of each file; the key is relative to the part of the location before the first wildcard."""
    location, suffix = spec.location, _FILE_SUFFIXES[spec.format]
    fixed = location[: min(location.find(char) % (len(location) + 1) for char in "{*?[")]
    root = uri_of(fixed.rpartition("/")[0] or "/")
    for place in expanded(location):
        if is_url(place) and not place.lower().endswith(suffix) and not place.startswith("http"):
            found = [joined(place, info.base_name) for info in children(place) if info.base_name.endswith(suffix)]
            base = place.rstrip("/")
        elif not is_url(place) and os.path.isdir(place):
            found = [path.as_uri() for path in sorted(Path(place).rglob(f"*{suffix}"))]
            base = uri_of(place)
        else:
            found, base = [uri_of(place)], root
        if not found:
            raise InputError(f"source {place} holds no {suffix} file; check the name, or --input-format")
        for uri in found:
            yield uri, uri.removeprefix(f"{base.rstrip('/')}/")


def _refuse_repeated(entries: Iterator[ImageEntry], location: str) -> Iterator[ImageEntry]:
    last = None
    for entry in entries:
        if last is not None and entry.key == last.key:
            raise InputError(
                f"source {location} names the key {entry.key!r} twice ({last.uri} and {entry.uri}); keys must be "
                "unique: remove one, or name a column of unique keys with --key-column"
            )
        last = entry
        yield entry


def _key(entry: ImageEntry) -> str:
    return entry.key
