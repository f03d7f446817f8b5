"""WebDataset tars: read from front to back, members of one key side by side. Opened only when a shard is read.

The key of a member is its name up to the first dot of its last part, as WebDataset has it. Every image member is a row;
`.txt` gives the caption of its key, `.json` what else is known.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from pipeline.errors import InputError
from pipeline.source.entry import ImageEntry, SourceFile, SourceSpec
from pipeline.source.folder import has_image_suffix
from pipeline.source.location import open_stream, persistently, reason_of

BLOCK = 512
MAX_MEMBER_BYTES = 2**30
"""Larger members are not read into memory; decoding gives them a row with the reason."""


def most_images(file: SourceFile) -> int:
    """Images a tar can hold at most: each needs a block of header."""
    return max(1, file.num_bytes // BLOCK)


def read_tar(file: SourceFile, spec: SourceSpec) -> Iterator[ImageEntry]:
    """The images of a tar in the order of its members.

    Raises:
        InputError: If it is cut, damaged, or its members are out of order or named twice.
        OSError, SourceUnavailable: If it cannot be read.
    """
    group: list[tuple[tarfile.TarInfo, bytes]] = []
    done: set[str] = set()
    current, num_images, end = None, 0, 0
    try:
        with (
            persistently(lambda: open_stream(file.uri), file.uri) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for member in archive:
                end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                folder, _, name = member.name.rpartition("/")
                if not member.isfile() or name.startswith("."):
                    continue
                key = os.path.join(folder, name.partition(".")[0])
                if key != current:
                    if key in done:
                        raise InputError(
                            f"{file.uri}: member {member.name!r} is out of order, others of {key!r} came before "
                            f"{current!r}; write the tar again with the members of a key side by side (--sort=name)"
                        )
                    if current is not None:
                        done.add(current)
                    entries = _entries(file, spec, group)
                    num_images += len(entries)
                    yield from entries
                    group, current = [], key
                if any(member.name == other.name for other, _ in group):
                    raise InputError(f"{file.uri}: member {member.name!r} is there twice; keys must be unique")
                data = archive.extractfile(member).read() if member.size <= MAX_MEMBER_BYTES else b""
                group.append((member, data))
    except tarfile.TarError as error:
        raise _cut(file, num_images + len(group), reason_of(error)) from error
    if end >= file.num_bytes:  # a whole tar ends with empty blocks
        raise _cut(file, num_images + len(group), "it ends without an end mark")
    yield from _entries(file, spec, group)


def read_member(uri: str, name: str) -> bytes:
    """One member's bytes. Raises OSError."""
    try:
        with open_stream(uri) as stream, tarfile.open(fileobj=stream) as archive:
            return archive.extractfile(name).read()
    except (tarfile.TarError, KeyError, AttributeError) as error:
        raise OSError(f"cannot read member {name!r}: {reason_of(error)}") from error


def _entries(file: SourceFile, spec: SourceSpec, group: list[tuple[tarfile.TarInfo, bytes]]) -> list[ImageEntry]:
    caption, fields = None, {}
    for member, data in group:
        suffix = os.path.splitext(member.name)[1].lower()
        if suffix == ".txt":
            caption = data.decode("utf-8", errors="replace").strip() or None
        elif suffix == ".json":
            fields = _fields(data)
    caption = caption or as_column(fields.get(spec.caption_column or "caption"))
    extra = {name: as_column(fields.get(name)) for name in spec.columns} or None
    return [
        ImageEntry(
            key=f"{file.key}/{member.name}",
            uri=f"{file.uri}#member={quote(member.name)}",
            num_bytes=member.size,
            mtime_ns=int(member.mtime * 1e9),
            caption=caption,
            extra=extra,
            data=data,
        )
        for member, data in group
        if has_image_suffix(member.name)
    ]


def as_column(value: Any) -> str | None:
    """A value of JSON as the text of a column."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except ValueError:  # what is said of an image is damaged, the image is not
        return {}
    return fields if isinstance(fields, dict) else {}


def _cut(file: SourceFile, num_images: int, reason: str) -> InputError:
    return InputError(
        f"{file.uri} is damaged after {num_images} images ({reason}); put a whole copy in its place, and run the same "
        "command with --on-change embed"
    )
