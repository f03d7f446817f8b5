"""Captions files: one `key TAB caption` per line. A key can have several lines.

A key is an image's path relative to the source folder. One that names no image exactly is matched all the same if it
is absolute, begins with `./`, has backslashes, other case or another Unicode form, and only one image is meant.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from posixpath import normpath

from pipeline.errors import InputError
from pipeline.source.access.naming import is_url
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.folder import list_images
from pipeline.source.formats.lines import read_lines
from pipeline.source.sorting import Sorted

Pair = tuple[str, str]

MAX_STRANGERS = 1_000_000
"""Number of keys that are matched although they name no image exactly; they are held in memory."""

_RULE = "keys must be paths relative to the source folder"


def iterate_captions(path: Path) -> Iterator[Pair]:
    """Yield (key, caption) pairs in the file's order.

    Raises:
        InputError: If the file is missing or not text, or a line has no tab.
    """
    for number, line in read_lines(path, "captions file", "a TSV file of keys and captions"):
        key, tab, caption = line.partition("\t")
        if not tab or not key or not caption.strip():
            raise InputError(f"captions file {path}, line {number}: expected `key TAB caption`, found {line[:60]!r}")
        yield key, caption.strip()


def read_captions(path: Path) -> dict[str, list[str]]:
    """All captions by key, in the file's order, with keys as the file has them.

    Raises:
        InputError: If the file is missing, empty or not text, or a line has no tab.
    """
    captions: dict[str, list[str]] = {}
    for key, caption in iterate_captions(path):
        captions.setdefault(key, []).append(caption)
    if not captions:
        raise _empty(path)
    return captions


def list_captioned(folder: Path, path: Path) -> tuple[list[ImageEntry], dict[str, list[str]]]:
    """The images of a folder, each with its first caption if it has one; and all captions by key, in the file's order.

    Args:
        folder: A local folder.
        path: Its captions file; read first, because a folder can take long to list.

    Raises:
        InputError: If either cannot be read, or a caption names an image that is not in the folder.
    """
    pairs = list(_tidied(path, str(folder)))
    if not pairs:
        raise _empty(path)
    entries, _ = list_images(folder)
    names = _names(Sorted(pairs, itemgetter(0)), lambda: (entry.key for entry in entries))
    captions: dict[str, list[str]] = {}
    for key, caption in pairs:
        captions.setdefault(names.get(key, key), []).append(caption)
    return with_captions(entries, captions), captions


def sorted_captions(entries: Iterable[ImageEntry], folder: str, path: Path) -> Sorted[Pair]:
    """All captions of a folder's images as (key of the image, caption), sorted by key, in any amount of memory.

    Args:
        entries: The images, sorted by key; iterated several times.
        folder: The folder that their keys are relative to, as a path or a URL.
        path: The captions file.

    Raises:
        InputError: If the file cannot be read, or names an image that is not among the entries.
    """
    pairs = Sorted(_tidied(path, folder), itemgetter(0))
    if not len(pairs):
        raise _empty(path)
    names = _names(pairs, lambda: (entry.key for entry in entries))
    if not names:
        return pairs
    return Sorted(((names.get(key, key), caption) for key, caption in _tidied(path, folder)), itemgetter(0))


def with_captions(entries: list[ImageEntry], captions: dict[str, list[str]]) -> list[ImageEntry]:
    """Give each entry its first caption, if it has one.

    Raises:
        InputError: If a caption names an image that is not among the entries.
    """
    missing = sorted(captions.keys() - {entry.key for entry in entries})
    if missing:
        raise _strangers(len(missing), missing[0])
    return [replace(entry, caption=captions.get(entry.key, [None])[0]) for entry in entries]


def join_captions(entries: Iterable[ImageEntry], captions: Iterable[Pair]) -> Iterator[ImageEntry]:
    """Give each entry its first caption, without holding either side in memory. Both must be sorted by key.

    Raises:
        InputError: At the end, if a caption names an image that is not among the entries.
    """
    # keep the first caption of each image
    firsts = ((key, next(pairs)[1]) for key, pairs in groupby(captions, lambda pair: pair[0]))
    caption = next(firsts, None)
    first_stranger, num_strangers = "", 0
    for entry in entries:
        while caption and caption[0] < entry.key:
            first_stranger, num_strangers = first_stranger or caption[0], num_strangers + 1
            caption = next(firsts, None)
        if caption and caption[0] == entry.key:
            yield replace(entry, caption=caption[1])
            caption = next(firsts, None)
        else:
            yield entry
    if caption:
        first_stranger, num_strangers = first_stranger or caption[0], num_strangers + 1 + sum(1 for _ in firsts)
    if num_strangers:
        raise _strangers(num_strangers, first_stranger)


def _tidied(path: Path, folder: str) -> Iterator[Pair]:
    """The pairs of a file; for a folder on disk, whose keys are tidy, with tidy paths relative to the folder."""
    if is_url(folder):
        yield from iterate_captions(path)
        return
    roots = [f"{place}/".replace("//", "/") for place in (Path(folder).absolute(), Path(folder).resolve())]
    for key, caption in iterate_captions(path):
        yield _tidy(key, roots), caption


def _tidy(key: str, roots: Iterable[str]) -> str:
    if not key.startswith(("/", "./", "../")) and "//" not in key and "/." not in key:
        return key
    tidy = normpath(key)
    root = next((root for root in roots if tidy.startswith(root)), "")
    return tidy.removeprefix(root)


def _names(pairs: Sorted[Pair], keys: Callable[[], Iterable[str]]) -> dict[str, str]:
    """Keys of images by the keys of captions that name no image exactly.

    Raises:
        InputError: If such a key means no image, or one of several.
    """
    found = _not_among((key for key, _ in pairs), keys())
    strangers = list(islice(found, MAX_STRANGERS))
    num_more = sum(1 for _ in found)
    if num_more:
        raise _strangers(len(strangers) + num_more, strangers[0], _hint(strangers[0], [], keys()))
    if not strangers:
        return {}
    alike: dict[str, list[str]] = {_folded(key): [] for key in strangers}
    for key in keys():
        if (folded := _folded(key)) in alike:
            alike[folded].append(key)
    candidates = {key for same in alike.values() for key in same}
    taken = {key for key, _ in pairs if key in candidates}  # these images have captions under their own names
    times: dict[str, int] = {}
    for key in strangers:
        times[_folded(key)] = times.get(_folded(key), 0) + 1
    names, lost = {}, []
    for key in strangers:
        same = alike[_folded(key)]
        if len(same) == 1 and times[_folded(key)] == 1 and same[0] not in taken:
            names[key] = same[0]
        else:
            lost.append(key)
    if lost:
        raise _strangers(len(lost), lost[0], _hint(lost[0], alike[_folded(lost[0])], keys()))
    return names


def _not_among(wanted: Iterable[str], keys: Iterable[str]) -> Iterator[str]:
    """Yield the distinct keys that are not among others. Both must be sorted."""
    others = iter(keys)
    other = next(others, None)
    for key, _ in groupby(wanted):
        while other is not None and other < key:
            other = next(others, None)
        if other != key:
            yield key


def _folded(key: str) -> str:
    """A key as it is compared if it names no image exactly."""
    path = normpath(unicodedata.normalize("NFC", key).replace("\\", "/")).casefold()
    return unicodedata.normalize("NFC", path)


def _hint(stranger: str, alike: list[str], keys: Iterable[str]) -> str:
    if len(alike) > 1:
        return f"it may mean {alike[0]!r} or {alike[1]!r}: write the key of the image exactly"
    if alike:
        return f"another caption is for {alike[0]!r}, the only image with a similar key: use one of the two keys"
    name = _folded(stranger).rpartition("/")[2]
    same = next((key for key in keys if _folded(key).rpartition("/")[2] == name), None)
    return f"{_RULE}, such as {same!r}" if same else _RULE


def _strangers(count: int, first: str, hint: str = _RULE) -> InputError:
    return InputError(f"{count} captioned images are not in the source, first {first!r}; {hint}")


def _empty(path: Path) -> InputError:
    return InputError(f"captions file {path} is empty; expected one `key TAB caption` per line")
