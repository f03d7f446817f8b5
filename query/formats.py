"""Formats of pictures, plots and hits, by the suffix of their file.

Without a suffix, a picture or plot is a PNG, and a file of hits is Parquet.
"""

from collections.abc import Collection
from pathlib import Path

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""As Pillow calls them."""

PLOTS = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp", ".pdf": "pdf", ".svg": "svg"}
"""As matplotlib calls them."""

HITS = (".parquet", ".csv", ".jsonl")


def hits_path(path: Path | None) -> Path | None:
    """Check the suffix of a file of hits.

    Raises:
        ValueError: If no format has it.
    """
    return _known(path, HITS)


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
