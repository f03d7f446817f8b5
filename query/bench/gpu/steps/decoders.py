"""Step `decoders`: do embeddings from each decoder equal those from open_clip's own preprocessing, and how fast is it.

`torchvision` decodes on the device (nvJPEG on a GPU) where it gives the same pixels as Pillow. The photographs are
generated, in several sizes and in both kinds of chroma storage.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
from PIL import Image

from pipeline.measure.parity import generated_photos, parity_cosines
from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.precision import Precision
from pipeline.model.spec import DecoderName, ModelSource
from pipeline.pixels.decode import decode_all_but_jpegs
from pipeline.pixels.nvjpeg import decode_jpegs
from pipeline.pixels.to_device import decode_for
from pipeline.source.entry import ImageEntry
from query.bench.gpu.setup import Row, Setup, Task, seconds_of


def tasks(setup: Setup) -> Iterator[Task]:
    """The tasks of this step."""
    for precision in ("fp32", "bf16"):
        yield Task(f"parity in {precision}", 30, lambda p=precision: _parity(setup, p))
    yield Task("rates", 30, lambda: _rates(setup))


def _parity(setup: Setup, precision: Precision) -> list[Row]:
    photos = _photos()[:: setup.scaled(1, 4)]
    rows = []
    for decoder in get_args(DecoderName):
        loaded = load_model(ModelSource(model="scenes", decoder=decoder), precision, setup.device)
        left = len(decode_all_but_jpegs(photos, loaded.spec.preprocess).jpegs)
        cosines = parity_cosines(loaded, photos)
        worst = photos[int(cosines.argmin())].key if len(cosines) == len(photos) else None
        rows.append(
            {
                "name": f"{decoder}, {precision}",
                "images": len(cosines),
                "left_to_the_device": left,
                "minimum_cosine": float(cosines.min()),
                "median_cosine": float(np.median(cosines)),
                "worst": worst,
            }
        )
    return rows


def _rates(setup: Setup) -> list[Row]:
    """Images per second of one process, at 500 x 375 pixels and full chroma, which both decoders accept."""
    photo = next(photo for photo in _photos() if photo.key == "500 x 375, full chroma")
    photos = [replace(photo, key=str(number)) for number in range(setup.scaled(512, 8))]
    rows = []
    for decoder in get_args(DecoderName):
        loaded = load_model(ModelSource(model="scenes", decoder=decoder), "fp32", setup.device)
        encoder = Encoder(loaded, None)
        decode_for(encoder, photos[:8])  # warm up
        seconds, _ = seconds_of(lambda e=encoder: decode_for(e, photos).pixels.sum())
        rows.append({"name": f"decode and resize, {decoder}", "images_per_second": len(photos) / seconds})
    jpegs = [np.frombuffer(photo.data, np.uint8)] * len(photos)
    decode_jpegs(jpegs[:8], encoder.device)
    seconds, _ = seconds_of(lambda: sum(int(image[0, 0, 0]) for image in decode_jpegs(jpegs, encoder.device)))
    rows.append({"name": "decode alone, torchvision", "images_per_second": len(photos) / seconds})
    return rows


def _photos() -> Sequence[ImageEntry]:
    """Every generated photograph twice: as it is (chroma at half size), and with full chroma."""
    photos = []
    for entry in generated_photos():
        photos.append(replace(entry, key=f"{entry.key}, half chroma"))
        file = io.BytesIO()
        Image.open(io.BytesIO(entry.data)).save(file, "JPEG", quality=90, subsampling=0)
        data = file.getvalue()
        photos.append(replace(entry, key=f"{entry.key}, full chroma", data=data, num_bytes=len(data)))
    return photos
