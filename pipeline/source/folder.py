"""List the images of a folder, on disk or behind a URL. Opens no image.

Policy: folders are walked recursively; hidden files and folders are left out; links to files are followed, links to
folders are not (they can loop). A name with an image suffix that turns out not to be an image becomes a row with its
reason later; other names are counted as ignored.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import InputError
from pipeline.source.entry import ImageEntry, as_text
from pipeline.source.location import children, is_url, joined, path_of, uri_of

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm .avif .heic .heif .jp2".split()
)


def has_image_suffix(name: str) -> bool:
    """Whether a name ends as images' names do."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def walk_folder(location: str) -> Iterator[ImageEntry | None]:
    """The images of a folder in no order, and None for each file that is ignored for its suffix.

    Raises:
        InputError: If the folder is missing or cannot be read.
    """
    if is_url(location):
        return _walk_url(location.rstrip("/"), location.rstrip("/"))
    return _walk_disk(Path(path_of(uri_of(location))))


def list_images(folder: Path) -> tuple[list[ImageEntry], int]:
    """List a local folder's images in the order of their keys.

    Returns:
        The entries, and the number of files ignored for their suffix.

    Raises:
        InputError: If the folder is missing, cannot be read, or has no image.
    """
    found = list(_walk_disk(folder.absolute()))
    entries = [entry for entry in found if entry]
    if not entries:
        raise no_image(str(folder), len(found))
    return sorted(entries, key=lambda entry: entry.key), len(found) - len(entries)


def no_image(location: str, num_ignored: int) -> InputError:
    """The error for a folder that has none."""
    return InputError(
        f"source {location} has no image: {num_ignored} files, none with a suffix of "
        f"{' '.join(sorted(IMAGE_SUFFIXES))}; give a folder of images, or name its tar, Parquet or list files"
    )


def _walk_disk(root: Path) -> Iterator[ImageEntry | None]:
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"source {root} {what}; give a folder of images")
    # a string prefix is much quicker than one Path per file
    base, base_uri = os.fspath(root), root.as_uri()
    folders = [""]
    while folders:
        relative = folders.pop()
        try:
            with os.scandir(os.path.join(base, relative)) as found:
                for item in found:
                    name = os.path.join(relative, item.name)
                    if item.name.startswith("."):
                        continue
                    if item.is_dir(follow_symlinks=False):
                        folders.append(name)
                    elif item.is_symlink() and item.is_dir():
                        continue
                    else:
                        yield _entry(item, name, base_uri) if has_image_suffix(item.name) else None
        except OSError as error:
            raise InputError(
                f"cannot list {os.path.join(base, relative)}: {error.strerror}; mend its permissions or move it away"
            ) from error


def _entry(item: os.DirEntry, name: str, base_uri: str) -> ImageEntry:
    try:
        status = item.stat()
        num_bytes, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:  # a dangling link, say: decoding gives it a row with the reason
        num_bytes = mtime_ns = 0
    return ImageEntry(as_text(Path(name)), f"{base_uri.rstrip('/')}/{_quoted(name)}", num_bytes, mtime_ns)


def _quoted(name: str) -> str:
    from urllib.parse import quote_from_bytes

    return quote_from_bytes(os.fsencode(name))


def _walk_url(folder: str, root: str) -> Iterator[ImageEntry | None]:
    from pyarrow.fs import FileType

    for info in children(folder):
        name = info.base_name
        if name.startswith("."):
            continue
        url = joined(folder, name)
        if info.type == FileType.Directory:
            yield from _walk_url(url, root)
        elif has_image_suffix(name):
            yield ImageEntry(url[len(root) + 1 :], url, info.size or 0, info.mtime_ns or 0)
        else:
            yield None
