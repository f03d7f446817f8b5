"""One planned shard as entries, and one image by its URI: the reading half of every source."""

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_to_bytes

from pipeline.errors import InputError
from pipeline.source.access.failures import reason_of
from pipeline.source.access.location import TooLarge, examine, read_bytes
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats import parquet, webdataset
from pipeline.source.limits import MAX_FILE_BYTES

_INSIDE = re.compile(r"#(?:member=(?P<member>[^#]+)|column=(?P<column>[^#&]+)&row=(?P<row>\d+))$")


def read_file(file: SourceFile, source: Source, start: int, stop: int) -> Iterator[ImageEntry]:
    """The images of a tar, or of rows `start` to `stop` of a Parquet file, with their bytes.

    Raises:
        InputError: If the file is not as it was planned, is damaged, or cannot be read.
        SourceUnavailable: If its server does not answer.
    """
    if examine(file.uri) != (file.num_bytes, file.mtime_ns):
        raise InputError(
            f"{file.uri} changed since the run was planned; put the old file back, or run the same command with "
            "--on-change embed"
        )
    try:
        if source.format == "webdataset":
            yield from webdataset.read_tar(file, source)
        else:
            yield from parquet.read_rows(file, source, start, stop)
    except OSError as error:
        raise InputError(
            f"cannot read {file.uri}: {reason_of(error)}; run the same command again, or if the file is damaged, put a "
            "whole copy in its place and run it with --on-change embed"
        ) from error


def read_image(uri: str) -> bytes:
    """The encoded bytes of one image, wherever it is.

    Raises:
        TooLarge: If they are more than `MAX_FILE_BYTES`.
        OSError: If it is not there or cannot be read.
        SourceUnavailable: If its server does not answer.
    """
    inside = _INSIDE.search(uri)
    if inside is None:
        return read_bytes(uri, MAX_FILE_BYTES)
    file = uri[: inside.start()]
    if inside["member"]:
        return webdataset.read_member(file, os.fsdecode(unquote_to_bytes(inside["member"])))
    data = parquet.read_cell(file, unquote(inside["column"]), int(inside["row"]))
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(f"{len(data)} bytes, the limit is {MAX_FILE_BYTES}")
    return data
