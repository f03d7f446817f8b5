"""List the images of a folder, and read captions files. Opens no image.

Policy: folders are walked recursively; hidden files and folders are left out; links to files are followed, links to
folders are not (they can loop). A name with an image suffix that turns out not to be an image becomes a row with its
reason later; other names are counted as ignored.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import InputError

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm .avif .heic .heif .jp2".split()
)


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image to embed, as listed.

    `key` is the path relative to the source, with suffix and forward slashes; `uri` an absolute `file://` URI;
    `num_bytes` and `mtime_ns` are 0 where the file could not be examined.
    """

    key: str
    uri: str
    num_bytes: int
    mtime_ns: int
    caption: str | None = None


def list_images(folder: Path) -> tuple[list[ImageEntry], int]:
    """List a folder's images in the order of their keys.

    Returns:
        The entries, and the number of files ignored for their suffix.

    Raises:
        InputError: If the folder is missing, cannot be read, or has no image.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"source {folder} {what}; give a folder of images")
    entries, num_ignored = [], 0
    for parent, folders, names in os.walk(folder.absolute(), onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                entries.append(_entry(Path(parent, name), folder.absolute()))
            else:
                num_ignored += 1
    if not entries:
        raise InputError(
            f"source {folder} has no image: {num_ignored} files, none with a suffix of "
            f"{' '.join(sorted(IMAGE_SUFFIXES))}; give a folder of images"
        )
    return sorted(entries, key=lambda entry: entry.key), num_ignored


def as_text(path: Path) -> str:
    """A path as text that Parquet and JSON can hold: names are bytes to the kernel, those not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def read_captions(path: Path) -> dict[str, list[str]]:
    """Read a captions file: one `key TAB caption` a line, UTF-8; several lines a key are allowed.

    Returns:
        Captions by key, in the file's order.

    Raises:
        InputError: If the file is missing, empty, not UTF-8, or a line has no tab.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read captions {path}: {error.strerror}; give a TSV of key and caption") from error
    except UnicodeDecodeError as error:
        raise InputError(f"captions {path} are not UTF-8 (byte {error.start}); save them as UTF-8") from error
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        key, tab, caption = line.rstrip("\r").partition("\t")
        if not tab or not key or not caption.strip():
            raise InputError(f"captions {path}, line {number}: expected `key TAB caption`, found {line[:60]!r}")
        captions.setdefault(key, []).append(caption.strip())
    if not captions:
        raise InputError(f"captions {path} are empty; expected one `key TAB caption` a line")
    return captions


def with_captions(entries: list[ImageEntry], captions: dict[str, list[str]]) -> list[ImageEntry]:
    """Give each entry its first caption, where it has one.

    Raises:
        InputError: If a caption names an image that is not among the entries.
    """
    missing = sorted(captions.keys() - {entry.key for entry in entries})
    if missing:
        raise InputError(
            f"{len(missing)} captioned images are not in the source, first {missing[0]!r}; "
            "captions name images by their path relative to the source folder"
        )
    return [replace(entry, caption=captions.get(entry.key, [None])[0]) for entry in entries]


def _entry(path: Path, root: Path) -> ImageEntry:
    key = as_text(path.relative_to(root))
    try:
        status = path.stat()
        num_bytes, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:  # a dangling link, say: decoding gives it a row with the reason
        num_bytes = mtime_ns = 0
    return ImageEntry(key=key, uri=path.as_uri(), num_bytes=num_bytes, mtime_ns=mtime_ns)


def _refuse(error: OSError) -> None:
    raise InputError(f"cannot list {error.filename}: {error.strerror}; mend its permissions or move it away")
