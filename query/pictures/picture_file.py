"""Picture files: the format goes by the name, and the file is written whole."""

from pathlib import Path

from PIL import Image

from pipeline.durable.atomic import write_atomically
from pipeline.errors import ConfigError
from query.formats import PICTURES

_LONGEST_SIDE = {"JPEG": 65_535, "WEBP": 16_383}


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture in the format of the file's suffix; PNG if it has none.

    Raises:
        ConfigError: If the picture is larger than the format allows.
        StoreError: If the file cannot be written.
    """
    kind = PICTURES.get(path.suffix.lower(), "PNG")
    longest = max(picture.size)
    if longest > _LONGEST_SIDE.get(kind, longest):
        raise ConfigError(
            f"{path} would be {picture.width} x {picture.height} pixels, and a {kind} has at most "
            f"{_LONGEST_SIDE[kind]} a side; give a name that ends in .png"
        )
    write_atomically(path, lambda temporary: picture.save(temporary, format=kind))
