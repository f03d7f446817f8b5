"""Captions files: one `key TAB caption` per line, in UTF-8. A key can have several lines."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from pipeline.errors import InputError
from pipeline.source.entry import ImageEntry


def iterate_captions(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (key, caption) pairs in the file's order.

    Raises:
        InputError: If the file is missing or not UTF-8, or a line has no tab.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                line = line.rstrip("\r\n")
                key, tab, caption = line.partition("\t")
                if not tab or not key or not caption.strip():
                    raise InputError(
                        f"captions file {path}, line {number}: expected `key TAB caption`, found {line[:60]!r}"
                    )
                yield key, caption.strip()
    except OSError as error:
        raise InputError(
            f"cannot read captions file {path}: {error.strerror}; pass a TSV file of keys and captions"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"captions file {path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def read_captions(path: Path) -> dict[str, list[str]]:
    """All captions by key, in the file's order.

    Raises:
        InputError: If the file is missing, empty or not UTF-8, or a line has no tab.
    """
    captions: dict[str, list[str]] = {}
    for key, caption in iterate_captions(path):
        captions.setdefault(key, []).append(caption)
    if not captions:
        raise InputError(f"captions file {path} is empty; expected one `key TAB caption` per line")
    return captions


def with_captions(entries: list[ImageEntry], captions: dict[str, list[str]]) -> list[ImageEntry]:
    """Give each entry its first caption, if it has one.

    Raises:
        InputError: If a caption names an image that is not among the entries.
    """
    missing = sorted(captions.keys() - {entry.key for entry in entries})
    if missing:
        raise _strangers(len(missing), missing[0])
    return [replace(entry, caption=captions.get(entry.key, [None])[0]) for entry in entries]


def join_captions(entries: Iterable[ImageEntry], captions: Iterable[tuple[str, str]]) -> Iterator[ImageEntry]:
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


def _strangers(count: int, first: str) -> InputError:
    return InputError(
        f"{count} captioned images are not in the source, first {first!r}; "
        "keys must be paths relative to the source folder"
    )
