"""WebDataset tars, read front to back. Opened only when a shard is read.

Every image is a row, in the order of the tar; so is every link to a file of the same tar. `.txt` holds a caption,
`.json` other fields; `tar/samples.py` says to which images they belong. Other members are skipped.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from typing import Any
from urllib.parse import quote_from_bytes

from pipeline.errors import InputError
from pipeline.source.access.failures import reason_of
from pipeline.source.access.location import TooLarge, open_stream
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats.folder import has_image_suffix
from pipeline.source.formats.tar.links import TarLinks, by_name, follow, is_link, is_repeat
from pipeline.source.formats.tar.samples import TEXT_SUFFIXES, Member, Sample, Samples
from pipeline.source.formats.text import as_text, caption_of, column_of, decode_text
from pipeline.source.left_out import Kind, ReadNotes
from pipeline.source.limits import MAX_FILE_BYTES, known_time_ns

BLOCK = 512
_MOST_IMAGES = 2**31
_PIECE = 2**16
_STARTS = {
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x04\x22\x4d\x18": "compressed with lz4",
    b"PK\x03\x04": "a ZIP archive",
}


def most_images(file: SourceFile) -> int:
    """Maximum number of images in a tar: each needs one header block. Some web servers do not report the tar's size."""
    return max(1, file.num_bytes // BLOCK) if file.num_bytes else _MOST_IMAGES


def read_tar(file: SourceFile, source: Source, notes: ReadNotes) -> Iterator[ImageEntry]:
    """Yield the images of a tar in the order of its members. `notes` are complete at its end.

    Raises:
        InputError: If it is truncated, damaged or compressed, or a member is out of order or there twice.
        OSError, SourceUnavailable: If it cannot be read.
    """
    return chain.from_iterable(read_samples(file, source, notes))


def read_samples(file: SourceFile, source: Source, notes: ReadNotes) -> Iterator[list[ImageEntry]]:
    """Yield the images of a tar like `read_tar`, those of one sample together."""
    notes.columns_seen = set()
    num_images = 0
    samples = Samples(file.uri, lambda kind, name: notes.left_out.add(kind, _key(file, name)))
    try:
        with (
            open_stream(file.uri) as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=_PIECE, tarinfo=_StrictMember) as archive,
            TarLinks(file.uri) as links,
        ):
            for found in samples.of(_members(archive, links, file, notes)):
                yield [_entry(file, source, sample, notes) for sample in found]
                num_images += len(found)
            while rest := archive.fileobj.read(_PIECE):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError("there is data after its end marker")
    except tarfile.TarError as error:
        raise _unreadable(file, num_images, error) from error
    if not num_images:
        notes.left_out.add(Kind.TAR_WITHOUT_IMAGE, file.key)


def read_member(uri: str, name: str) -> bytes:
    """Read the bytes of one member, or of the one that it links to.

    Raises:
        TooLarge: If there are more than `MAX_FILE_BYTES`.
        OSError, SourceUnavailable: If it does not exist or cannot be read.
    """
    data = _read_where_it_was(uri, name)
    if data is not None:
        return data
    try:
        with open_stream(uri) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            member = archive.getmember(name)
            _places(uri).update((one.name, one.offset) for one in archive.getmembers() if one.isreg())
            if is_link(member):
                member = follow(member, by_name(archive.getmembers()))
            if isinstance(member, Kind):
                raise OSError(f"cannot read member {name!r}: it is a link that leads to no file of the tar")
            if member.size > MAX_FILE_BYTES:
                raise TooLarge(f"{member.size} bytes, the limit is {MAX_FILE_BYTES}")
            return archive.extractfile(member).read()
    except (tarfile.TarError, KeyError, AttributeError) as error:
        raise OSError(f"cannot read member {name!r}: {reason_of(error)}") from error


@lru_cache(4)
def _places(uri: str) -> dict[str, int]:
    """Where the headers of a tar's files were when it was last read to its end, by name."""
    return {}


def _read_where_it_was(uri: str, name: str) -> bytes | None:
    """Read a member without those before it; None if it is not known to be there, or no longer is."""
    place = _places(uri).get(name)
    if place is None:
        return None
    with suppress(tarfile.TarError), open_stream(uri) as stream:
        stream.seek(place)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            member = archive.firstmember
            if member and member.name == name and member.isreg() and member.size <= MAX_FILE_BYTES:
                return archive.extractfile(member).read()
    _places(uri).clear()
    return None


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


def _unreadable(file: SourceFile, num_images: int, error: tarfile.TarError) -> InputError:
    what, instead = f"damaged after {num_images} images ({reason_of(error)})", "an intact copy"
    if not num_images:
        with open_stream(file.uri) as stream:
            start = stream.read(BLOCK)
        other = next((name for magic, name in _STARTS.items() if start.startswith(magic)), None)
        if other:
            what, instead = f"{other}, although its name is that of a plain tar", "a plain tar of its content"
    return InputError(
        f"{file.uri} is {what}; replace it with {instead}, then run the same command with --on-change embed"
    )


def _members(archive: tarfile.TarFile, links: TarLinks, file: SourceFile, notes: ReadNotes) -> Iterator[Member]:
    """Yield the images and texts. The bytes of each are read when the next one is asked for."""
    for info in archive:
        archive.members.clear()  # otherwise it keeps them all in memory
        passed_over = _passed_over(info.name)
        if passed_over:
            if info.isfile():
                notes.left_out.add(passed_over, _key(file, info.name))
            continue
        if info.isfile():
            content, read = info, archive.extractfile
        elif is_link(info):
            content, read = links.target_of(info), links.open
            if isinstance(content, Kind):
                notes.left_out.add(content, _key(file, info.name))
                continue
            if is_repeat(info):
                continue
            notes.num_links += has_image_suffix(info.name)
        else:
            continue
        member = Member(info.name, content.size, _mtime_ns(info))
        yield member
        if content.size <= MAX_FILE_BYTES:
            member.data = read(content).read()


def _passed_over(name: str) -> Kind | None:
    """Why a member is neither an image nor a text; None if it is one."""
    if name.rpartition("/")[2].startswith("."):
        return Kind.HIDDEN
    return None if has_image_suffix(name) or name.lower().endswith(TEXT_SUFFIXES) else Kind.OTHER_SUFFIX


def _mtime_ns(member: tarfile.TarInfo) -> int:
    return known_time_ns(member.mtime * 1e9)


def _entry(file: SourceFile, source: Source, sample: Sample, notes: ReadNotes) -> ImageEntry:
    fields = _fields(sample.json.data) if sample.json else {}
    if fields is None:
        notes.left_out.add(Kind.DAMAGED_JSON, _key(file, sample.image.name))
        fields = {}
    notes.columns_seen |= fields.keys() & {source.caption_column, *source.columns}
    texts = [sample.txt and decode_text(sample.txt.data), fields.get(source.caption_column)]
    if source.is_caption_column_named:
        texts.reverse()
    image = sample.image
    return ImageEntry(
        key=_key(file, image.name),
        uri=f"{file.uri}#member={quote_from_bytes(os.fsencode(image.name))}",
        num_bytes=image.num_bytes,
        mtime_ns=image.mtime_ns,
        caption=next(filter(None, map(caption_of, texts)), None),
        extra={name: column_of(fields.get(name)) for name in source.columns} or None,
        data=image.data,
    )


def _key(file: SourceFile, name: str) -> str:
    return f"{file.key}/{as_text(name)}"


@lru_cache(1)  # for images that share a text
def _fields(data: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(decode_text(data))
    except (ValueError, RecursionError):  # only the metadata is damaged, not the image
        return None
    return fields if isinstance(fields, dict) else None
