"""List the images of a folder, on disk or behind a URL. Opens no image.

Folders are walked recursively; see `tree` for what is left out. A file with an image suffix that is not an image later
becomes a row with the reason; files with other suffixes are counted.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import InputError
from pipeline.source.entry import ImageEntry, Source
from pipeline.source.formats.tree import Rules, walk
from pipeline.source.left_out import Kind, LeftOut

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm .avif .heic .heif .jp2".split()
)


def has_image_suffix(name: str) -> bool:
    """Whether a name has an image suffix."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def image_rules(source: Source) -> Rules:
    """What a walk of a folder of images takes."""
    return Rules(has_image_suffix, Kind.OTHER_SUFFIX, source.exclude, source.follow_links)


def walk_folder(source: Source, left_out: LeftOut) -> Iterator[ImageEntry]:
    """Yield the images of a folder in no order, and count in `left_out` what is not an image.

    Raises:
        InputError: If the folder is missing or cannot be read.
    """
    return walk(source.location, image_rules(source), left_out)


def list_images(folder: Path) -> tuple[list[ImageEntry], LeftOut]:
    """List a local folder's images, sorted by key.

    Returns:
        The entries, and what the folder holds besides them.

    Raises:
        InputError: If the folder is missing, cannot be read, or contains no images.
    """
    left_out = LeftOut()
    source = Source(location=os.fspath(folder.absolute()), format="folder")
    entries = sorted(walk_folder(source, left_out), key=lambda entry: entry.key)
    if not entries:
        raise no_image(str(folder), left_out)
    return entries, left_out


def no_image(location: str, left_out: LeftOut) -> InputError:
    """The error for a folder without images."""
    more = f" (left out: {left_out.describe()})" if left_out else ""
    return InputError(
        f"source {location} contains no images: no file in it has a suffix of "
        f"{' '.join(sorted(IMAGE_SUFFIXES))}{more}; pass a folder of images, or its tar, Parquet or list files"
    )
