"""Read the entries of a planned shard, or one image by its URI."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote, unquote_to_bytes

from pipeline.errors import InputError
from pipeline.source.access.credentials import take_credentials
from pipeline.source.access.failures import reason_of
from pipeline.source.access.location import TooLarge, examine, read_bytes
from pipeline.source.access.naming import is_url, is_web
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats import webdataset
from pipeline.source.left_out import LeftOut
from pipeline.source.limits import MAX_FILE_BYTES

_INSIDE = re.compile(r"#(?:member=(?P<member>[^#]+)|column=(?P<column>[^#&]+)&row=(?P<row>\d+))$")


@dataclass(slots=True)
class ReadNotes:
    """What is known of a file besides its images, once it has been read."""

    left_out: LeftOut = field(default_factory=LeftOut)


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
        if source.format == "webdataset":
            yield from map(take_credentials, webdataset.read_tar(file, source))
        else:
            from pipeline.source.formats import parquet  # brings pyarrow, which other sources do not need

            yield from map(take_credentials, parquet.read_rows(file, source, start, stop))
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
