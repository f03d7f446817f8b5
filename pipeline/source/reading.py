"""Read the entries of a planned shard, or one image by its URI."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from urllib.parse import unquote, unquote_to_bytes

from pipeline.errors import InputError, SourceUnavailable
from pipeline.source.access.credentials import KEYRING, take_credentials
from pipeline.source.access.failures import reason_of
from pipeline.source.access.location import TooLarge, examine, read_bytes
from pipeline.source.access.naming import is_url, is_web
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats import webdataset
from pipeline.source.left_out import ReadNotes
from pipeline.source.limits import MAX_FILE_BYTES

_INSIDE = re.compile(r"#(?:member=(?P<member>[^#]+)|column=(?P<column>[^#&]+)&row=(?P<row>\d+))$")


def read_file(
    file: SourceFile, source: Source, start: int, stop: int, notes: ReadNotes | None = None
) -> Iterator[ImageEntry]:
    """Yield the images of a tar, or of rows `start` to `stop` of a Parquet file, with their bytes.

    `notes`, if given, are complete once the last image is yielded.

    Raises:
        InputError: If the file changed since it was planned, is damaged, or cannot be read.
        SourceUnavailable: If its server does not respond.
    """
    if examine(file.uri) != (file.num_bytes, file.mtime_ns):
        raise InputError(
            f"{file.uri} changed since the run was planned; restore the original file, or run the same command with "
            "--on-change embed"
        )
    try:
        yield from _images_of(file, source, start, stop, notes or ReadNotes())
    except OSError as error:
        raise InputError(
            f"cannot read {file.uri}: {reason_of(error)}; run the same command again. If the file is damaged, replace "
            "it with an intact copy first, and add --on-change embed"
        ) from error


def read_image(uri: str) -> bytes:
    """Read the encoded bytes of one image from any kind of source.

    Raises:
        TooLarge: If there are more than `MAX_FILE_BYTES`.
        OSError: If the image does not exist or cannot be read.
        SourceUnavailable: If its server does not respond.
    """
    inside = _INSIDE.search(uri)
    if inside is None:
        return read_bytes(uri, MAX_FILE_BYTES)
    if is_url(uri) and not is_web(uri):  # the name of an object can look like that of a member
        with suppress(OSError):
            return read_bytes(uri, MAX_FILE_BYTES)
    file = uri[: inside.start()]
    if inside["member"]:
        return webdataset.read_member(file, os.fsdecode(unquote_to_bytes(inside["member"])))
    from pipeline.source.formats import parquet

    data = parquet.read_cell(file, unquote(inside["column"]), int(inside["row"]))
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(f"{len(data)} bytes, the limit is {MAX_FILE_BYTES}")
    return data


def read_listed(entries: Iterable[ImageEntry], source: Source) -> Iterator[ImageEntry]:
    """Yield listed images of tars and Parquet files with their bytes, in one pass over each file.

    Looking up each image by its URI would read a file from its start each time. An image that the pass does not meet
    is yielded without bytes: `read_image` finds it, or says why not. A cell that holds a link gives the link's URI.

    Args:
        entries: Images in the order of their files, and of their members or rows. Each that is out of order costs
            another pass.
        source: The source of the files.

    Raises:
        SourceUnavailable: If a server does not respond.
    """
    for uri, group in groupby(entries, _file_of):
        wanted = list(group)
        yield from _with_bytes(uri, wanted, source) if uri else wanted


def _file_of(entry: ImageEntry) -> str | None:
    inside = _INSIDE.search(entry.uri)
    return entry.uri[: inside.start()] if inside else None


def _with_bytes(uri: str, wanted: Sequence[ImageEntry], source: Source) -> Iterator[ImageEntry]:
    found, is_intact = _pass_over(uri, wanted, source), True
    for entry in wanted:
        wanted_place, match = _place_of(entry.uri), None
        try:
            match = next((other for place, other in found if place == wanted_place), None)
        except SourceUnavailable:
            raise
        except (InputError, OSError):
            is_intact = False  # changed, damaged or gone: each image that is left gets its own reason
        if match:
            yield replace(entry, uri=match.uri, data=match.data, num_bytes=match.num_bytes)
        else:
            yield entry
            if is_intact:  # it is gone or out of order, and the others may come before it
                found = _pass_over(uri, wanted, source)


def _pass_over(uri: str, wanted: Sequence[ImageEntry], source: Source) -> Iterator[tuple[str | int, ImageEntry]]:
    """Yield the images of a file, each with its place in it."""
    file = SourceFile(key="", uri=uri, num_bytes=0, mtime_ns=0)
    places = [_place_of(entry.uri) for entry in wanted]
    if source.format == "webdataset":
        yield from ((_place_of(entry.uri), entry) for entry in _images_of(file, source, 0, 0, ReadNotes()))
    else:
        yield from enumerate(_images_of(file, source, min(places), max(places) + 1, ReadNotes()), min(places))


def _place_of(uri: str) -> str | int:
    """The name of a member of a tar, as it is escaped, or the number of a row."""
    inside = _INSIDE.search(uri)
    return inside["member"] or int(inside["row"])


def _images_of(file: SourceFile, source: Source, start: int, stop: int, notes: ReadNotes) -> Iterator[ImageEntry]:
    if source.format == "webdataset":
        yield from map(take_credentials, webdataset.read_tar(file, source, notes))
    else:
        from pipeline.source.formats import parquet  # brings pyarrow, which other sources do not need

        KEYRING.begin_pass()
        yield from map(take_credentials, parquet.read_rows(file, source, start, stop))
