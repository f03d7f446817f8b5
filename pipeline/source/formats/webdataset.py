"""WebDataset tars: read front to back, with the members of a key side by side. Opened only when a shard is read.

As in WebDataset, the key of a member is its path up to the first dot of the file name. Every image member is a row.
`.txt` holds the caption of its key, `.json` other fields. Other members are skipped.
"""

import json
import math
import os
import tarfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

from pipeline.errors import InputError
from pipeline.source.access.failures import reason_of
from pipeline.source.access.location import TooLarge, open_stream
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats.folder import has_image_suffix
from pipeline.source.formats.text import as_text, caption_of, column_of, decode_text
from pipeline.source.limits import MAX_FILE_BYTES

BLOCK = 512
_MOST_IMAGES = 2**31
_PIECE = 2**20


def most_images(file: SourceFile) -> int:
    """Maximum number of images in a tar: each needs one header block. Some web servers do not report the tar's size."""
    return max(1, file.num_bytes // BLOCK) if file.num_bytes else _MOST_IMAGES


def read_tar(file: SourceFile, source: Source) -> Iterator[ImageEntry]:
    """Yield the images of a tar in the order of its members.

    Raises:
        InputError: If it is truncated or damaged, or a member is out of order or there twice.
        OSError, SourceUnavailable: If it cannot be read.
    """
    num_images = 0
    try:
        with (
            open_stream(file.uri) as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=_PIECE, tarinfo=_StrictMember) as archive,
        ):
            for group in _groups(archive, file):
                for entry in _entries(file, source, group):
                    num_images += 1
                    yield entry
            while rest := archive.fileobj.read(_PIECE):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError("there is data after its end marker")
    except tarfile.TarError as error:
        raise InputError(
            f"{file.uri} is damaged after {num_images} images ({reason_of(error)}); replace it with an intact copy, "
            "then run the same command with --on-change embed"
        ) from error


def read_member(uri: str, name: str) -> bytes:
    """Read the bytes of one member.

    Raises:
        TooLarge: If there are more than `MAX_FILE_BYTES`.
        OSError, SourceUnavailable: If it does not exist or cannot be read.
    """
    try:
        with open_stream(uri) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            member = archive.getmember(name)
            if member.size > MAX_FILE_BYTES:
                raise TooLarge(f"{member.size} bytes, the limit is {MAX_FILE_BYTES}")
            return archive.extractfile(member).read()
    except (tarfile.TarError, KeyError, AttributeError) as error:
        raise OSError(f"cannot read member {name!r}: {reason_of(error)}") from error


class _StrictMember(tarfile.TarInfo):
    """Ends a tar only at its end marker. Plain `tarfile` also treats damage and truncation as the end."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.EmptyHeaderError:
            raise tarfile.ReadError("it has no end marker") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _groups(archive: tarfile.TarFile, file: SourceFile) -> Iterator[list[tuple[tarfile.TarInfo, bytes]]]:
    """Yield the members of each key, with their bytes."""
    group: list[tuple[tarfile.TarInfo, bytes]] = []
    names: set[str] = set()
    done: set[str] = set()
    current = None
    for member in archive:
        folder, _, name = member.name.rpartition("/")
        if not member.isfile() or name.startswith("."):
            continue
        key = os.path.join(folder, name.partition(".")[0])
        if key != current:
            if key in done:
                raise InputError(
                    f"{file.uri}: member {member.name!r} is out of order, other members of {key!r} come before "
                    f"{current!r}; rewrite the tar with the members of a key side by side (tar --sort=name)"
                )
            if current is not None:
                done.add(current)
                yield group
            group, names, current = [], set(), key
        if member.name in names:
            raise InputError(
                f"{file.uri}: member {member.name!r} is there twice; rewrite the tar with each name only once"
            )
        names.add(member.name)
        archive.members.clear()  # otherwise it keeps them all in memory
        if _is_of_use(member.name):
            group.append((member, archive.extractfile(member).read() if member.size <= MAX_FILE_BYTES else b""))
    yield group


def _is_of_use(name: str) -> bool:
    return has_image_suffix(name) or name.lower().endswith((".txt", ".json"))


def _entries(file: SourceFile, source: Source, group: list[tuple[tarfile.TarInfo, bytes]]) -> Iterator[ImageEntry]:
    caption, fields = None, {}
    for member, data in group:
        suffix = os.path.splitext(member.name)[1].lower()
        if suffix == ".txt":
            caption = decode_text(data)
        elif suffix == ".json":
            fields = _fields(data)
    caption = caption_of(caption) or caption_of(fields.get(source.caption_column))
    extra = {name: column_of(fields.get(name)) for name in source.columns} or None
    for member, data in group:
        if has_image_suffix(member.name):
            yield ImageEntry(
                key=f"{file.key}/{as_text(member.name)}",
                uri=f"{file.uri}#member={quote_from_bytes(os.fsencode(member.name))}",
                num_bytes=member.size,
                mtime_ns=int(member.mtime * 1e9) if math.isfinite(member.mtime) else 0,
                caption=caption,
                extra=extra,
                data=data,
            )


def _fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(decode_text(data))
    except (ValueError, RecursionError):  # only the metadata is damaged, not the image
        return {}
    return fields if isinstance(fields, dict) else {}
