"""The image tower of a store, loaded as the store's record says, to look for images by image."""

import io
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import FingerprintMismatch, InputError, first_line
from pipeline.model.spec import ClaimedSpec, DeviceChoice, EncoderSpec
from pipeline.store.calibration import read_stored_calibration
from query.text import refuse_other_claim

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.model.encode import Encoder

_encoding = Lock()  # a pruned tower remembers its cuts during a forward pass


def image_encoder(
    spec: EncoderSpec | ClaimedSpec, device: DeviceChoice = "auto", calibration: Path | None = None
) -> "Encoder":
    """Load the encoder that makes image vectors in the space of a store's images.

    It prunes as the store's encoder did, in the same precision, with the same adapter and at the same image size.
    Nobody knows that of imported embeddings: their model runs unpruned in float32, with its own preprocessing.

    Args:
        spec: The encoder of the store.
        device: Where to run; `auto` is the CPU, as for texts.
        calibration: Where the store keeps its calibration; only a store in int8 has one.

    Raises:
        ConfigError: If the device is not available.
        FingerprintMismatch: If the model named by the store no longer gives the vectors that are in it.
        InputError: If the model cannot be loaded.
        StoreError: If the calibration is missing or was changed.
    """
    from pipeline.model.calibrate import with_packed
    from pipeline.model.device import pick_device  # torch and open_clip take seconds
    from pipeline.model.encode import Encoder, fastest_encoder
    from pipeline.model.load import load_model, with_policy

    on = pick_device("cpu" if device == "auto" else device)
    if isinstance(spec, ClaimedSpec):
        encoder = Encoder(load_model(spec.source, "fp32", on), policy=None)
        refuse_other_claim(spec, encoder.spec)
        return encoder
    # the kernels change only the last bits, and to measure them takes longer than an image does
    data = read_stored_calibration(calibration, spec) if calibration else None
    loaded = load_model(spec.source, spec.precision, on, kernels="torch")
    loaded = with_packed(loaded, data)
    found = with_policy(loaded.spec, spec.policy)
    if found.image_space != spec.image_space:
        raise FingerprintMismatch(
            f"the store's images are in image space {spec.image_space[:16]}, but model {spec.source.model} has "
            f"{found.image_space[:16]}: its weights, its adapter or its preprocessing changed; restore them, or "
            "embed again"
        )
    return fastest_encoder(loaded, spec.policy)


def encode_image(encoder: "Encoder", image: "str | Path | bytes | Image") -> np.ndarray:
    """Embed one image as `embed` does. Several threads can use one encoder.

    Args:
        encoder: Of `image_encoder`.
        image: A path or URL, the bytes of a file, or an opened image.

    Returns:
        float32 [E], unit length.

    Raises:
        InputError: If the image cannot be read or decoded.
        SourceUnavailable: If its server does not respond.
    """
    from pipeline.pixels.to_device import decode_for
    from pipeline.source.entry import ImageEntry
    from pipeline.source.secrets import without_credentials

    data: bytes | None = None
    if isinstance(image, str | Path):
        uri = str(image)
        name = f"image {without_credentials(uri)}"
    else:
        uri, name = "", "the image of the query"
        data = image if isinstance(image, bytes) else _lossless(image)
    with _encoding:
        decoded = decode_for(encoder, [ImageEntry(name, uri, len(data or b""), 0, data=data)])
        if failed := decoded.first_failed():
            raise InputError(f"{name} is {failed.status.value}: {failed.error}; give an image that can be opened")
        return encoder.encode(decoded.pixels)[0]


def encode_pixels(encoder: "Encoder", pixels_HWC: np.ndarray) -> np.ndarray:
    """Embed one decoded image (uint8 [H, W, 3], at the tower's size): float32 [E], unit length."""
    with _encoding:
        return encoder.encode(encoder.to_device(pixels_HWC[None]))[0]


def _lossless(image: "Image") -> bytes:
    """An opened image as a file, so that it is resized and cropped in one way only."""
    from pipeline.pixels.opening import to_rgb

    file = io.BytesIO()
    try:
        to_rgb(image.copy()).save(file, "PNG", compress_level=0)
    except Exception as error:  # Pillow raises many types, and may read the file only now
        raise InputError(
            f"the image of the query cannot be decoded: {first_line(error)}; give an image that can be opened"
        ) from error
    return file.getvalue()
