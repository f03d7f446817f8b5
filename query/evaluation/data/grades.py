"""Graded relevance: a TSV of `caption TAB key TAB grade`."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.lines import read_lines


class Judgement(NamedTuple):
    """How well one image answers a caption; 0 if it does not."""

    caption: str
    image: int
    grade: float


def read_grades(path: Path, entries: Sequence[ImageEntry]) -> list[Judgement]:
    """The judgements of a file, in its order.

    Raises:
        InputError: If the file cannot be read or is empty, a line has another form, or it names an unknown image, or a
            caption and image that an earlier line has judged.
    """
    numbers = {entry.key: number for number, entry in enumerate(entries)}
    found, lines = [], {}
    for line, caption, key, grade in _fields(path):
        if key not in numbers:
            name = key.rpartition("/")[2]
            like = next((other for other in numbers if other.rpartition("/")[2] == name), entries[0].key)
            raise InputError(
                f"grades file {path}, line {line}: no image has the key {key!r}; keys are as in the source, such as "
                f"{like!r}"
            )
        first = lines.setdefault((caption, key), line)
        if first != line:
            raise InputError(
                f"grades file {path}, lines {first} and {line} both judge {key!r} for one caption; keep one"
            )
        found.append(Judgement(caption, numbers[key], grade))
    if not any(judgement.grade > 0 for judgement in found):
        raise InputError(f"grades file {path} has no grade above 0; expected one `caption TAB key TAB grade` per line")
    return found


def _fields(path: Path) -> Iterator[tuple[int, str, str, float]]:
    for number, line in read_lines(path, "grades file", "a TSV file of captions, keys and grades"):
        caption, key, text = [*line.split("\t"), "", "", ""][:3]
        caption = caption.strip()
        try:
            grade = float(text)
        except ValueError:
            grade = math.nan
        if line.count("\t") != 2 or not caption or not key or not 0 <= grade < math.inf:
            raise InputError(
                f"grades file {path}, line {number}: expected `caption TAB key TAB grade` with a grade of 0 or more, "
                f"found {line[:60]!r}"
            )
        yield number, caption, key, grade
