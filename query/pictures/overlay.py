"""Which patches of a photo a policy keeps, as one PNG: the photo, then one picture per cut."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from query.pictures.picture_file import write_picture

_SIDE = 336
_COLUMNS = 4
_GAP = 14
_LABEL = 26
_INK = (28, 30, 36)
_DIMMED = 0.18  # opacity of the photo where a patch is dropped
_PAPER = np.array([236, 237, 240])


def write_overlay(
    path: Path, pixels_HWC: np.ndarray, grid: tuple[int, int], cuts: Sequence[tuple[int, np.ndarray]]
) -> None:
    """Draw the tower's input and, for each cut, the patches it keeps.

    Args:
        path: Picture to write.
        pixels_HWC: The input, uint8.
        grid: Rows and columns of patches.
        cuts: For each cut, the block that follows it, and the positions of the kept patches, row by row.

    Raises:
        StoreError: If the file cannot be written.
    """
    num_patches = grid[0] * grid[1]
    panels = [(f"input, {num_patches} patches", pixels_HWC)]
    for number, places in cuts:
        panels.append((f"before block {number}: {len(places)} of {num_patches}", _faded(pixels_HWC, grid, places)))
    columns, rows = min(_COLUMNS, len(panels)), -(-len(panels) // _COLUMNS)
    size = (_GAP + columns * (_SIDE + _GAP), _GAP + rows * (_SIDE + _LABEL + _GAP))
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for index, (label, pixels) in enumerate(panels):
        left = _GAP + index % _COLUMNS * (_SIDE + _GAP)
        top = _GAP + index // _COLUMNS * (_SIDE + _LABEL + _GAP)
        sheet.paste(Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), (left, top))
        draw.text((left, top + _SIDE + 5), label, fill=_INK, font=font)
    write_picture(path, sheet)


def _faded(pixels_HWC: np.ndarray, grid: tuple[int, int], places: np.ndarray) -> np.ndarray:
    is_kept = np.zeros(grid[0] * grid[1], bool)
    is_kept[places] = True
    height, width, _ = pixels_HWC.shape
    rows = np.minimum(np.arange(height) * grid[0] // height, grid[0] - 1)
    columns = np.minimum(np.arange(width) * grid[1] // width, grid[1] - 1)
    shines_HW1 = is_kept.reshape(grid)[rows][:, columns, None]
    faded = _DIMMED * pixels_HWC + (1 - _DIMMED) * _PAPER
    return np.where(shines_HW1, pixels_HWC, faded).astype(np.uint8)
