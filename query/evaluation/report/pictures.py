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
    caption: str = ""


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
                image = _picture(image, "JPEG")
            self._known[uri] = image
        return self._known[uri]


def kept_patches(results: Results, folder: SweepFolder) -> list[Picture]:
    """The pictures of kept patches, each with its caption, as large as the page can carry."""
    if not folder.pictures.is_dir():
        return []
    paths = sorted(path for path in folder.pictures.iterdir() if path.suffix.lower() in _SUFFIXES)
    found: list[Picture] = []
    for width in _WIDTHS:
        found = [_overlay(path, width, _caption(results, path)) for path in paths]
        if sum(len(picture.source) for picture in found) <= _MOST_BYTES_OF_OVERLAYS:
            break
    return found


def _overlay(path: Path, width: int, caption: str) -> Picture:
    with Image.open(path) as image:
        shown = image.convert("RGB")
    shown.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
    return _picture(shown, "WEBP", caption)


def _caption(results: Results, path: Path) -> str:
    """The condition that a file's name has, or the name itself."""
    for found in results.conditions:
        if found.condition.key in path.stem:
            rest = path.stem.replace(found.condition.key, "").strip("-_. ")
            return f"{found.condition.name}, image {rest}" if rest.isdecimal() else found.condition.name
    return path.stem


def _picture(image: Image.Image, kind: str, caption: str = "") -> Picture:
    file = io.BytesIO()
    image.save(file, kind, quality=_QUALITY)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(f"data:image/{kind.lower()};base64,{data}", image.width, image.height, caption)
