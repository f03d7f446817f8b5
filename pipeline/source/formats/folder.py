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

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm .avif .heic .heif .jp2".split()
)


def has_image_suffix(name: str) -> bool:
    """Whether a name has an image suffix."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def walk_folder(location: str) -> Iterator[ImageEntry | None]:
    """Yield the images of a folder in no order, and None for each file ignored because of its suffix.

    Raises:
        InputError: If the folder is missing or cannot be read.
    """
    if not is_url(location):
        return _walk_disk(path_of(uri_of(location)))
    root = location.rstrip("/")
    return (
        ImageEntry(name, f"{root}/{name}", found.num_bytes, found.mtime_ns) if has_image_suffix(name) else None
        for name, found in walk(root)
    )


def list_images(folder: Path) -> tuple[list[ImageEntry], int]:
    """List a local folder's images, sorted by key.

    Returns:
        The entries, and the number of files ignored because of their suffix.

    Raises:
        InputError: If the folder is missing, cannot be read, or contains no images.
    """
    found = list(_walk_disk(os.fspath(folder.absolute())))
    entries = [entry for entry in found if entry]
    if not entries:
        raise no_image(str(folder), len(found))
    return sorted(entries, key=lambda entry: entry.key), len(found) - len(entries)


def no_image(location: str, num_ignored: int) -> InputError:
    """The error for a folder without images."""
    return InputError(
        f"source {location} contains no images: none of its {num_ignored} files has a suffix of "
        f"{' '.join(sorted(IMAGE_SUFFIXES))}; pass a folder of images, or its tar, Parquet or list files"
    )


def _walk_disk(root: str) -> Iterator[ImageEntry | None]:
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
                    else:
                        yield _entry(item, key, uri) if has_image_suffix(name) else None
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
