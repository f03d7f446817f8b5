"""Generated photographs as files: as many names as needed, for a few different images."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

_DIFFERENT = 64
_SIZE = (500, 375)
_FILES_PER_FOLDER = 1000


def write_photographs(folder: Path, count: int, has_full_chroma: bool = False) -> Path:
    """Write `count` JPEGs of 500 x 375 pixels, unless the folder exists.

    Args:
        folder: Where to write them.
        count: Number of files. The images repeat, as links.
        has_full_chroma: Store chroma at full size, as few cameras do; only such JPEGs are decoded on a GPU.
    """
    if folder.exists():
        return folder
    folder.mkdir(parents=True)
    for number in range(count):
        place = folder / f"{number // _FILES_PER_FOLDER:04d}"
        place.mkdir(exist_ok=True)
        path = place / f"{number:07d}.jpg"
        if number < _DIFFERENT:
            _photograph(number).save(path, "JPEG", quality=90, subsampling=0 if has_full_chroma else 2)
        else:
            original = number % _DIFFERENT
            os.link(folder / f"{original // _FILES_PER_FOLDER:04d}" / f"{original:07d}.jpg", path)
    return folder


def _photograph(seed: int) -> Image.Image:
    """Coarse, medium and fine detail, as in photographs."""
    random = np.random.default_rng(seed)
    width, height = _SIZE
    image = Image.new("RGB", _SIZE)
    for scale, weight in ((8, 1.0), (60, 0.5), (250, 0.25)):
        noise = random.integers(0, 256, (max(1, height * scale // width), scale, 3), dtype=np.uint8)
        image = Image.blend(image, Image.fromarray(noise).resize(_SIZE, Image.Resampling.BICUBIC), weight)
    return image
