"""Check that our ingest gives the same embeddings as open_clip's preprocessing. Shown by `clipsieve doctor`."""

import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from pipeline.model.device import DTYPES
from pipeline.model.encode import Encoder
from pipeline.model.load import LoadedModel
from pipeline.model.transform import reference_transform
from pipeline.pixels.decode import open_rgb
from pipeline.pixels.to_device import decode_for
from pipeline.source.entry import ImageEntry

_SIZES = ((500, 375), (375, 500), (640, 480), (1024, 683), (200, 160), (4000, 3000), (3000, 4000), (6000, 1500))
_BATCH = 32


@torch.inference_mode()
def parity_cosines(loaded: LoadedModel, entries: Sequence[ImageEntry]) -> np.ndarray:
    """Cosines [N] between embeddings from our decoding and from open_clip's, for the N images that can be decoded."""
    encoder = Encoder(loaded, None)
    transform = reference_transform(loaded.spec.preprocess)
    cosines = []
    for start in range(0, len(entries), _BATCH):
        batch = entries[start : start + _BATCH]
        decoded = decode_for(encoder, batch)
        good = np.flatnonzero(decoded.is_ok_B).tolist()
        if not good:
            continue
        images = torch.stack([transform(_opened(batch[slot])) for slot in good])
        features = loaded.clip.encode_image(images.to(loaded.device, DTYPES[loaded.spec.precision]))
        reference = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
        cosines.append(np.einsum("be,be->b", encoder.encode(decoded.pixels[good]), reference))
    return np.concatenate(cosines) if cosines else np.empty(0, np.float32)


def generated_photos() -> Iterator[ImageEntry]:
    """Generate JPEGs of many sizes and shapes, up to 12 megapixels, for use without a photo collection."""
    for number, (width, height) in enumerate(_SIZES):
        random = np.random.default_rng(number)
        image = Image.new("RGB", (width, height))
        for scale, weight in ((8, 1.0), (60, 0.5), (400, 0.25)):  # coarse, medium and fine detail, as in photos
            noise = random.integers(0, 256, (max(1, height * scale // width), scale, 3), dtype=np.uint8)
            layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
            image = Image.blend(image, layer, weight)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        data = file.getvalue()
        yield ImageEntry(f"{width} x {height}", "generated:", len(data), 0, data=data)


def describe(cosines: Iterable[float]) -> str:
    """Summarise minimum and median in one line."""
    values = np.asarray(list(cosines))
    if not len(values):
        return "no image could be decoded"
    return f"minimum cosine {values.min():.6f}, median {np.median(values):.6f} over {len(values)} images"


def _opened(entry: ImageEntry) -> Image.Image:
    return Image.open(io.BytesIO(entry.data)) if entry.data is not None else open_rgb(entry.uri)
