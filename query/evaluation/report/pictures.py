"""Images inside the page, small enough that the report stays a file one can send."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from query.evaluation.raw.folder import SweepFolder
from query.evaluation.results import Results
from query.hits.thumbnail import open_or_say_why

_SIDE = 152
_QUALITY = 70
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
_WIDTHS = (1120, 840, 640, 480)
_MOST_BYTES_OF_OVERLAYS = 700_000
"""Of all pictures of kept patches together."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a data URI."""

    source: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class KeptPatches(Picture):
    """Which patches of an image a condition keeps."""

    image: str
    condition: str


class Thumbnails:
    """Opens each image once."""

    def __init__(self) -> None:
        self._known: dict[str, Picture | str] = {}

    def of(self, uri: str) -> Picture | str:
        """A small picture of an image, or why there is none."""
        if uri not in self._known:
            image = open_or_say_why(uri)
            if not isinstance(image, str):
                image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
                image = Picture(_data_uri(image, "JPEG"), image.width, image.height)
            self._known[uri] = image
        return self._known[uri]


def kept_patches(results: Results, folder: SweepFolder) -> list[KeptPatches]:
    """The pictures of kept patches, as large as the page can carry."""
    if not folder.pictures.is_dir():
        return []
    paths = sorted(path for path in folder.pictures.iterdir() if path.suffix.lower() in _SUFFIXES)
    found: list[KeptPatches] = []
    for width in _WIDTHS:
        found = [_overlay(path, width, *_of(results, path)) for path in paths]
        if sum(len(picture.source) for picture in found) <= _MOST_BYTES_OF_OVERLAYS:
            break
    return found


def _overlay(path: Path, width: int, image_name: str, condition: str) -> KeptPatches:
    with Image.open(path) as image:
        shown = image.convert("RGB")
    shown.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
    return KeptPatches(_data_uri(shown, "WEBP"), shown.width, shown.height, image_name, condition)


def _of(results: Results, path: Path) -> tuple[str, str]:
    """The image and the condition that a file's name stands for."""
    for found in results.conditions:
        if path.stem.startswith(f"{found.condition.key}-"):
            return f"Image {path.stem.removeprefix(f'{found.condition.key}-')}", found.condition.name
    return "Other pictures", path.stem


def _data_uri(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind, quality=_QUALITY)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
