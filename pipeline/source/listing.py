"""List a source from names and footers: the first stage of a run. Memory does not grow with the source."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pipeline.errors import InputError
from pipeline.source.access.credentials import KEYRING, take_credentials, take_source
from pipeline.source.access.location import examine, map_concurrently
from pipeline.source.access.naming import (
    is_url,
    is_web,
    path_of,
    suffix_of,
    uri_of,
    without_parameters,
)
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats.captions import join_captions, sorted_captions
from pipeline.source.formats.files import COMPRESSED, FILE_SUFFIXES, files_of, rules_of
from pipeline.source.formats.folder import no_image, walk_folder
from pipeline.source.formats.table import LIST_SUFFIXES, path_in_list, read_list
from pipeline.source.formats.text import as_text
from pipeline.source.formats.tree import Rules
from pipeline.source.left_out import Kind, LeftOut
from pipeline.source.sorting import Sorted

Format = Literal["folder", "webdataset", "parquet", "list"]


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

    def is_gone(self, key: str, uri: str) -> bool:
        """Whether an image or file that a plan lists, and this listing does not, is gone from the source.

        It is not if a rule now leaves it out, or if it is in a folder that a link leads to and links are not followed.
        """
        key = key.removeprefix(self.source.key_prefix)
        if self.source.format == "list":
            return not _excludes_row(self._rules, self.source, key, uri)
        return not (self._rules.leaves_out(key) or (not is_url(uri) and os.path.lexists(path_of(uri))))

    @cached_property
    def _rules(self) -> Rules:
        return rules_of(self.source)

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
    given = source.location
    if not (is_web(given) and "?" in given):
        given = given.rstrip("/") or "/"
    location = take_source(given)
    source = source.model_copy(update={"is_signed": location != given})
    if not is_url(location):  # absolute, because a resumed job may start in another folder
        location = path_of(uri_of(location))
    source = source.model_copy(update={"location": location, "format": _format(location, source.format)})
    if captions and source.format != "folder":
        raise InputError(
            f"--captions is for folders only; a {source.format} source has its own captions, see --caption-column"
        )
    _refuse_strange_columns(source)
    if source.format in FILE_SUFFIXES:
        return _list_files(source)
    source = source.model_copy(update={"columns": dict.fromkeys(source.columns, "string")})
    if source.format == "list":
        return _list_entries(source)
    left_out = LeftOut()
    count = _Count(walk_folder(source, left_out))
    listing = Sorted(count, _key)
    if not len(listing):
        raise no_image(location, left_out)
    pairs = sorted_captions(listing, location, captions) if captions else None
    return Listing(source, listing, pairs, [], left_out, count.num_bytes)


def _list_entries(source: Source) -> Listing:
    rules, left_out = rules_of(source), LeftOut()
    is_signed = source.is_signed

    def entries() -> Iterator[ImageEntry]:
        nonlocal is_signed
        KEYRING.begin_pass()
        for entry in read_list(source):
            bare = take_credentials(entry)
            is_signed = is_signed or bare.uri != entry.uri
            if _excludes_row(rules, source, bare.key, bare.uri):
                left_out.add(Kind.EXCLUDED, bare.key)
            else:
                yield bare

    count = _Count(entries())
    listing = Sorted(count, _key)
    if left_out and not len(listing):
        raise InputError(f"source {source.location}: --exclude leaves none of its images; pass other patterns")
    source = source.model_copy(update={"is_signed": is_signed})
    return Listing(source, entries=listing, left_out=left_out, num_bytes=count.num_bytes)


def _excludes_row(rules: Rules, source: Source, key: str, uri: str) -> bool:
    """Whether a pattern names a row of a list, by its key or by the path of its image."""
    return bool(rules.exclude) and (rules.excludes_within(key) or rules.excludes_within(path_in_list(source, uri)))


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
    name = without_parameters(location).lower().removesuffix("/")
    if name.endswith(COMPRESSED):  # refused later, with advice
        return "webdataset"
    suffix = suffix_of(name)
    found = next((name for name, end in FILE_SUFFIXES.items() if suffix == end), None)
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
    left_out = LeftOut()
    found = sorted(files_of(source, left_out), key=lambda pair: pair[1])
    if not found:
        raise InputError(f"source {source.location}: --exclude leaves none of its files; pass other patterns")
    for (one, key), (other, same) in pairwise(found):
        if key == same:
            raise InputError(
                f"source {source.location} has two files named {key!r} ({one} and {other}); name each file once, or "
                "embed them separately, each with its own --key-prefix"
            )
    for uri, _ in found:
        if without_parameters(uri).lower().endswith(COMPRESSED):
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
        listing = Listing(source, files=files, num_bytes=sum(file.num_bytes for file in files))
    else:
        listing = _with_footers(files, source)
    return replace(listing, left_out=left_out)


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
