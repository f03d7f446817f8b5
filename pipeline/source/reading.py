"""Read the entries of a planned shard, or one image by its URI."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from urllib.parse import unquote, unquote_to_bytes

from pipeline.errors import InputError, SourceUnavailable
from pipeline.source.access.credentials import take_credentials
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
    is yielded without bytes: `read_image` finds it, or says why not.

    Args:
        entries: Images in the order of their files, and of their members or rows.
        source: The source of the files.

    Raises:
        SourceUnavailable: If a server does not respond.
    """
    for uri, group in groupby(entries, _file_of):
        wanted = list(group)
        found = _pass_over(uri, wanted, source) if uri else iter(())
        for entry in wanted:
            match = next((other for other in found if other.uri == entry.uri), None)
            yield replace(entry, data=match.data, num_bytes=match.num_bytes) if match else entry


def _file_of(entry: ImageEntry) -> str | None:
    inside = _INSIDE.search(entry.uri)
    return entry.uri[: inside.start()] if inside else None


def _pass_over(uri: str, wanted: Sequence[ImageEntry], source: Source) -> Iterator[ImageEntry]:
    file = SourceFile(key="", uri=uri, num_bytes=0, mtime_ns=0)
    rows = [int(_INSIDE.search(entry.uri)["row"] or 0) for entry in wanted]  # none in a tar
    try:
        yield from _images_of(file, source, min(rows), max(rows) + 1, ReadNotes())
    except SourceUnavailable:
        raise
    except (InputError, OSError):
        return  # changed, damaged or gone: each image gets its own reason


def _images_of(file: SourceFile, source: Source, start: int, stop: int, notes: ReadNotes) -> Iterator[ImageEntry]:
    if source.format == "webdataset":
        yield from map(take_credentials, webdataset.read_tar(file, source, notes))
    else:
        from pipeline.source.formats import parquet  # brings pyarrow, which other sources do not need

        yield from map(take_credentials, parquet.read_rows(file, source, start, stop))
