"""Karpathy's JSON: images with captions and splits, as published for Flickr8k, Flickr30k and COCO."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from pipeline.errors import InputError
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.text import caption_of

_EXPECTED = "expected Karpathy's JSON: `images`, each with `filename`, `split`, and `sentences` with `raw`"


class _Sentence(BaseModel):
    raw: str


class _Image(BaseModel):
    filename: str
    filepath: str = ""
    split: str
    sentences: list[_Sentence]

    @property
    def path(self) -> str:
        return f"{self.filepath}/{self.filename}".lstrip("/")


class _File(BaseModel):
    images: list[_Image]


def read_karpathy(
    path: Path, split: str, entries: Sequence[ImageEntry]
) -> tuple[list[ImageEntry], dict[str, list[str]]]:
    """The images of one split, and their captions by key, in the order of the file.

    An image is found by `filepath/filename`, else by `filename`, else as the only image of that name in any folder.

    Args:
        path: The file.
        split: `train`, `val`, `test`, or another name that the file uses.
        entries: The images to choose from, sorted by key.

    Raises:
        InputError: If the file cannot be read or has another form, the split has no images, an image is missing or
            named twice, or a caption is blank.
    """
    images = _images(path)
    wanted = {number: image for number, image in enumerate(images) if image.split == split}
    if not wanted:
        counts = Counter(image.split for image in images)
        names = ", ".join(f"{name} ({count} images)" for name, count in counts.items())
        raise InputError(f"captions file {path} has no split {split!r}; it has {names or 'no images'}")
    keys = _keys(path, split, wanted, entries)
    captions = {
        keys[number]: [_caption(path, number, place, text.raw) for place, text in enumerate(image.sentences)]
        for number, image in wanted.items()
    }
    return [entry for entry in entries if entry.key in captions], captions


def _images(path: Path) -> list[_Image]:
    try:
        return _File.model_validate_json(path.read_bytes()).images
    except OSError as error:
        raise InputError(
            f"cannot read captions file {path}: {error.strerror}; pass a TSV or Karpathy's JSON"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"captions file {path}: {place}{place and ': '}{first['msg']}; {_EXPECTED}") from error


def _keys(path: Path, split: str, wanted: dict[int, _Image], entries: Sequence[ImageEntry]) -> dict[int, str]:
    """The key of each wanted image, by its number in the file."""
    exact, by_name = {entry.key for entry in entries}, {}
    for entry in entries:
        by_name.setdefault(entry.key.rpartition("/")[2], []).append(entry.key)
    keys, missing = {}, []
    for number, image in wanted.items():
        candidates = [key for key in (image.path, image.filename) if key in exact][:1]
        candidates = candidates or by_name.get(image.filename, [])
        if len(candidates) > 1:
            raise InputError(
                f"captions file {path}: images.{number} {image.path!r} may mean {candidates[0]!r} or {candidates[1]!r};"
                " pass the folder that its paths are relative to"
            )
        if candidates:
            keys[number] = candidates[0]
        else:
            missing.append(number)
    if missing:
        raise InputError(
            f"captions file {path}: {len(missing)} of {len(wanted)} images of split {split!r} are not in the source, "
            f"first images.{missing[0]} {wanted[missing[0]].path!r}; pass the folder that holds them all"
        )
    first: dict[str, int] = {}
    for number, key in keys.items():
        if first.setdefault(key, number) != number:
            raise InputError(
                f"captions file {path}: images.{first[key]} and images.{number} are both {key!r}; keep one"
            )
    return keys


def _caption(path: Path, number: int, place: int, raw: str) -> str:
    caption = caption_of(raw)
    if caption is None:
        raise InputError(f"captions file {path}: images.{number}.sentences.{place}.raw is blank; remove the sentence")
    return caption
