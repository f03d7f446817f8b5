"""Formats of pictures and plots, by the suffix of their file. A name without a suffix gives a PNG."""

from collections.abc import Collection
from pathlib import Path

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""As Pillow calls them."""

PLOTS = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp", ".pdf": "pdf", ".svg": "svg"}
"""As matplotlib calls them."""


def picture_path(path: Path | None) -> Path | None:
    """Check the suffix of a picture.

    Raises:
        ValueError: If no format has it.
    """
    return _known(path, PICTURES)


def plot_path(path: Path | None) -> Path | None:
    """Check the suffix of a plot.

    Raises:
        ValueError: If no format has it.
    """
    return _known(path, PLOTS)


def _known(path: Path | None, formats: Collection[str]) -> Path | None:
    if path and path.suffix and path.suffix.lower() not in formats:
        raise ValueError(f"expected a name that ends in one of {' '.join(formats)}")
    return path
