"""Which texts of a tar belong to which of its images: a rule on names, for members in the order of the tar.

As in WebDataset, members whose names are equal up to the first dot are a group. An image with the name N and the stem S
(N without its last suffix) and a text with the name T (without `.txt` or `.json`) belong together if they are of one
group and

- T is N (`photo.jpg.json`), or T is S, or
- S is T with more fields, each of them a word (`left`, `seg`), or
- S is T with any fields, and T is neither name nor stem of an image of the group (`0001.0.jpg`, `0001.json`).

Of several texts of a kind, an image gets the one with the longest name.

A group with more images or bytes than may be held in memory is cut where the names change, and the last case is left
out, because it needs the whole group. A text that was read reaches later images too, while memory for texts lasts.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.source.formats.folder import has_image_suffix
from pipeline.source.left_out import Kind

MAX_IMAGES = 100
MAX_BYTES = 64 * 2**20
"""Limits on what is held of a group before it is cut, and on the texts that wait for later images."""

FEW = 16
"""So few members are held whatever their size: the images of one sample can be large."""

TEXT_SUFFIXES = (".txt", ".json")
_OVERHEAD = 512  # bytes in memory for each member besides its data, about
_WORDS = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*")
_LAST_WORDS = re.compile(r"(?:\.[A-Za-z_][A-Za-z0-9_-]*)+$")


@dataclass(slots=True)
class Member:
    """An image or a text of a tar. `stem` and `suffix` are the two parts of its name."""

    name: str
    num_bytes: int
    mtime_ns: int
    data: bytes = b""
    """Filled in by the time that the next member is asked for."""

    group: str = field(init=False)
    """Its name up to the first dot."""
    stem: str = field(init=False)
    suffix: str = field(init=False)
    is_image: bool = field(init=False)
    is_used: bool = False
    """Whether a text has reached an image."""

    def __post_init__(self) -> None:
        self.group = self.name[: self.name.index(".", self.name.rfind("/") + 1)]
        self.stem, suffix = os.path.splitext(self.name)
        self.suffix, self.is_image = suffix.lower(), has_image_suffix(self.name)

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return self.num_bytes + _OVERHEAD


class Sample(NamedTuple):
    """An image and its texts."""

    image: Member
    txt: Member | None
    json: Member | None


class Samples:
    """Brings together the images and texts of one tar."""

    def __init__(self, where: str, note: Callable[[Kind, str], None]) -> None:
        """Start without members.

        Args:
            where: The tar, for messages.
            note: Called with each text without an image, and each image without a text in a group that has texts.
        """
        self._where, self._note = where, note
        self._images: set[str] = set()
        self._groups_with_texts: set[str] = set()
        self._texts: dict[str, Member] = {}
        self._num_bytes = 0
        # the names of texts that come too late for an image, and whether they belong to it whatever else is there
        self._late: dict[str, dict[str, bool]] = {suffix: {} for suffix in TEXT_SUFFIXES}

    def of(self, members: Iterable[Member]) -> Iterator[list[Sample]]:
        """Yield the samples of each group, or of each part of a large group, in the order of the members.

        Raises:
            InputError: If a member is there twice, or a text comes after its image was yielded.
        """
        for run, is_whole in _runs(self._checked(members), _CUTS):
            yield self._match(run, is_whole)
            self._forget(MAX_BYTES)
        self._forget(0)

    def _checked(self, members: Iterable[Member]) -> Iterator[Member]:
        for member in members:
            if not member.is_image:
                self._groups_with_texts.add(member.group)
            elif member.name in self._images:
                raise self._twice(member)
            else:
                self._images.add(member.name)
            yield member

    def _match(self, run: Sequence[Member], is_whole: bool) -> list[Sample]:
        images = [member for member in run if member.is_image]
        taken = {name for image in images for name in (image.name, image.stem)}
        for member in run:
            if not member.is_image:
                self._add(member, taken)
        found = []
        for image in images:
            sample = Sample(image, *(self._text_for(image, suffix, is_whole, taken) for suffix in TEXT_SUFFIXES))
            if not (sample.txt or sample.json) and image.group in self._groups_with_texts:
                self._note(Kind.IMAGE_WITHOUT_TEXT, image.name)
            found.append(sample)
        return found

    def _add(self, text: Member, taken: set[str]) -> None:
        belongs_to_earlier = self._late[text.suffix].get(text.stem)
        if belongs_to_earlier or (belongs_to_earlier is False and text.stem not in taken):
            raise InputError(
                f"{self._where}: the text {text.name!r} is out of order, it comes after its image and other members; "
                "rewrite the tar with each text before its image or next to it (tar --sort=name)"
            )
        same = self._texts.pop(text.stem + text.suffix, None)
        if same:
            if same.name == text.name:
                raise self._twice(text)
            self._drop(same)
        self._texts[text.stem + text.suffix] = text
        self._num_bytes += text.size

    def _text_for(self, image: Member, suffix: str, is_whole: bool, taken: set[str]) -> Member | None:
        late = self._late[suffix]
        for name, is_certain in _names_of_texts(image):
            if is_certain or (is_whole and name not in taken):
                if text := self._texts.get(name + suffix):
                    text.is_used = True
                    return text
                late[name] = is_certain or late.get(name, False)
        return None

    def _forget(self, max_bytes: int) -> None:
        """Drop the oldest texts until the others fit in `max_bytes`."""
        while self._num_bytes > max_bytes:
            self._drop(self._texts.pop(next(iter(self._texts))))

    def _drop(self, text: Member) -> None:
        self._num_bytes -= text.size
        if not text.is_used:
            self._note(Kind.TEXT_WITHOUT_IMAGE, text.name)

    def _twice(self, member: Member) -> InputError:
        return InputError(
            f"{self._where}: member {member.name!r} is there twice; rewrite the tar with each name only once"
        )


def _names_of_texts(image: Member) -> Iterator[tuple[str, bool]]:
    """Names of texts that may belong to an image, longest first, and whether they do whatever else is there."""
    yield image.name, True
    name = image.stem
    yield name, True
    while len(name) > len(image.group):
        name = name.rpartition(".")[0]
        yield name, bool(_WORDS.fullmatch(image.stem, len(name) + 1))


def _without_words(member: Member) -> str:
    return _LAST_WORDS.sub("", member.stem)


def _shared_stem(member: Member) -> str:
    is_name = not member.is_image and has_image_suffix(member.stem)  # the text of photo.jpg is photo.jpg.json
    return os.path.splitext(member.stem)[0] if is_name else member.stem


_CUTS = (lambda member: member.group, _without_words, _shared_stem)


def _runs(
    members: Iterable[Member], cuts: Sequence[Callable[[Member], str]], is_whole: bool = True
) -> Iterator[tuple[Sequence[Member], bool]]:
    """Yield adjacent members that agree on the first cut, and whether that is a whole group.

    Where they are too many to hold, they are cut further.
    """
    for _, found in groupby(members, cuts[0]):
        held: deque[Member] = deque()
        rest = iter(found)
        num_bytes = num_images = 0
        for member in rest:
            held.append(member)
            num_bytes += member.size
            num_images += member.is_image
            is_large = num_images > MAX_IMAGES or (num_bytes > MAX_BYTES and len(held) > FEW)
            if is_large and cuts[1:]:
                yield from _runs(chain(_emptied(held), rest), cuts[1:], False)
                break
        else:
            yield held, is_whole


def _emptied(members: deque[Member]) -> Iterator[Member]:
    while members:
        yield members.popleft()
