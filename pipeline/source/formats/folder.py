"""List the images of a folder, on disk or behind a URL. Opens no image.

Folders are walked recursively. Hidden files and folders are skipped. Links to files are followed, links to folders are
not, because they can loop. A file with an image suffix that is not an image later becomes a row with the reason; files
with other suffixes are counted as ignored.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes

from pipeline.errors import InputError
from pipeline.source.access.location import walk
from pipeline.source.access.naming import is_url, path_of, uri_of
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.text import as_text
from pipeline.source.left_out import Kind, LeftOut

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm .avif .heic .heif .jp2".split()
)


def has_image_suffix(name: str) -> bool:
    """Whether a name has an image suffix."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def walk_folder(location: str, left_out: LeftOut) -> Iterator[ImageEntry]:
    """Yield the images of a folder in no order, and count in `left_out` what is not an image.

    Raises:
        InputError: If the folder is missing or cannot be read.
    """
    if not is_url(location):
        return _walk_disk(path_of(uri_of(location)), left_out)
    return _walk_remote(location.rstrip("/"), left_out)


def list_images(folder: Path) -> tuple[list[ImageEntry], LeftOut]:
    """List a local folder's images, sorted by key.

    Returns:
        The entries, and what the folder holds besides them.

    Raises:
        InputError: If the folder is missing, cannot be read, or contains no images.
    """
    left_out = LeftOut()
    entries = sorted(_walk_disk(os.fspath(folder.absolute()), left_out), key=lambda entry: entry.key)
    if not entries:
        raise no_image(str(folder), left_out)
    return entries, left_out


def no_image(location: str, left_out: LeftOut) -> InputError:
    """The error for a folder without images."""
    num_others = left_out.counts.get(Kind.OTHER_SUFFIX, 0)
    return InputError(
        f"source {location} contains no images: none of its {num_others} files has a suffix of "
        f"{' '.join(sorted(IMAGE_SUFFIXES))}; pass a folder of images, or its tar, Parquet or list files"
    )


def _walk_remote(root: str, left_out: LeftOut) -> Iterator[ImageEntry]:
    for name, found in walk(root):
        if has_image_suffix(name):
            yield ImageEntry(name, f"{root}/{name}", found.num_bytes, found.mtime_ns)
        else:
            left_out.add(Kind.OTHER_SUFFIX, name)


def _walk_disk(root: str, left_out: LeftOut) -> Iterator[ImageEntry]:
    if not os.path.isdir(root):
        what = "is not a folder" if os.path.lexists(root) else "does not exist"
        raise InputError(f"source {root} {what}; pass a folder of images")
    folders = [""]
    while folders:
        relative = folders.pop()
        path = os.path.join(root, relative)
        # strings are much faster than one Path per file
        key, uri = as_text(relative), f"file://{_quoted(path.rstrip('/'))}/"
        try:
            with os.scandir(path) as found:
                for item in found:
                    name = item.name
                    if name.startswith("."):
                        continue
                    if item.is_dir(follow_symlinks=False):
                        folders.append(f"{relative}{name}/")
                    elif item.is_symlink() and os.path.isdir(item.path):
                        continue
                    elif has_image_suffix(name):
                        yield _entry(item, key, uri)
                    else:
                        left_out.add(Kind.OTHER_SUFFIX, key + as_text(name))
        except OSError as error:
            raise InputError(
                f"cannot list {path.rstrip('/')}: {error.strerror}; fix its permissions or move it away"
            ) from error


def _entry(item: os.DirEntry, folder_key: str, folder_uri: str) -> ImageEntry:
    try:
        status = item.stat()
        num_bytes, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:  # for example a dangling link; decoding gives it a row with the reason
        num_bytes = mtime_ns = 0
    return ImageEntry(folder_key + as_text(item.name), folder_uri + _quoted(item.name), num_bytes, mtime_ns)


def _quoted(path: str) -> str:
    return quote_from_bytes(os.fsencode(path))
