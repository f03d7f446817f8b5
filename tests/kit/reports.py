"""Helpers for tests that embed: small images, tars, and the rows of a report."""

import io
import tarfile

from pipeline.store.commit_markers import committed_markers
from pipeline.store.parts import read_part


def rows(report):
    """All rows of a report's store."""
    store = report.store
    parts = committed_markers(store, report.record).values()
    return [row for stats in parts for row in read_part(store.part_of(stats)).to_pylist()]


def jpeg(make_image, number):
    """The bytes of a small JPEG, another one for each number."""
    buffer = io.BytesIO()
    make_image(40 + number, 50, number).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path, members):
    """Write a tar of members, given as bytes by name."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
