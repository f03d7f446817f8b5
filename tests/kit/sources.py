"""Helpers for tests of sources: list one, make a tar, decode an image by its URI."""

import io
import tarfile

from pipeline.model.spec import Preprocess
from pipeline.pixels.decode import decode_batch
from pipeline.source.entry import ImageEntry, Source
from pipeline.source.listing import list_source

PREPROCESS = Preprocess(height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3)


def listed(location, source_format="auto", captions=None, **spec):
    """The listing of a source."""
    return list_source(Source(location=str(location), format=source_format, **spec), captions)


def tar_of(members):
    """The bytes of a tar of members, given as bytes by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def record_of(uri):
    """The image result for a URI."""
    [result] = decode_batch([ImageEntry("k", uri, 0, 0)], PREPROCESS).results
    return result


def folder_of(folder, names):
    """Make a folder with a small file of each name, each with other content."""
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_text(f"image {number}")
    return folder
