"""The ranges of a tower's 8-bit inputs, as a file: what they were measured on, and for which weights.

They are measured once, on images of the collection, and kept in the store: other ranges give other embeddings, so their
hash is part of the encoder's fingerprint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from pipeline.durable.atomic import write_atomically
from pipeline.model.quantization.packed import MadeOf, calibration_sha256, made_of, read_packed
from pipeline.model.quantization.products import Range

ENOUGH_IMAGES = 32
"""With fewer images that differ, a range says more about these images than about the collection."""

_BLANK = 1.0
"""An image whose pixels (0 to 255) deviate less than this in every channel is blank."""

# in this order: another size also gives other weights
_TOWER = {
    "height": "input height",
    "width": "input width",
    "adapter": "adapter",
    "image_weights_sha256": "weights",
}
"""What tells towers apart, in words."""

_RANGE, _SMOOTH, _OUTLIERS = ".range", ".smooth", ".outliers"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The range of each 8-bit input of an image tower, by the name of its layer."""

    ranges: Mapping[str, Range]
    made_of: MadeOf

    @cached_property
    def sha256(self) -> str:
        """Hash of the ranges alone (hex): of all that changes an embedding."""
        return calibration_sha256(self.packed())

    def packed(self) -> bytes:
        """As the bytes of a file."""
        return to_safetensors(_tensors(self.ranges), self.made_of.as_metadata())

    def write(self, path: Path) -> None:
        """Write to a file, at once and as a whole."""
        write_atomically(path, lambda temporary: temporary.write_bytes(self.packed()))

    def misfit(self, wanted: MadeOf) -> str | None:
        """Why these are the ranges of another tower; None if they fit. The policy and the images may differ."""
        for name, words in _TOWER.items():
            found, asked = getattr(self.made_of, name), getattr(wanted, name)
            if found != asked:
                return (
                    f"it is of a tower with the {words} {_short(found)} ({self.made_of.model}), but this one has "
                    f"{_short(asked)} ({wanted.model})"
                )
        return None


def read_calibration(path: Path) -> Calibration:
    """Read the file that a first run wrote.

    Raises:
        InputError: If it cannot be read, or is no calibration.
    """
    return unpack_calibration(read_packed(path))


def unpack_calibration(data: bytes) -> Calibration:
    """The calibration in the bytes of a file.

    Raises:
        SafetensorError, ValueError, KeyError: If it is none.
    """
    tensors = from_safetensors(data)
    names = [name.removesuffix(_RANGE) for name in tensors if name.endswith(_RANGE)]
    ranges = {}
    for name in sorted(names):
        scale, zero_point = tensors[name + _RANGE].tolist()
        ranges[name] = Range(
            scale=scale,
            zero_point=int(zero_point),
            smooth_K=tensors.get(name + _SMOOTH),
            outliers_M=tensors.get(name + _OUTLIERS),
        )
    return Calibration(ranges=ranges, made_of=made_of(data))


def doubt_about(pixels_NHWC: np.ndarray, advice: str) -> str | None:
    """What makes images a bad set to calibrate on, as a warning: too few of them differ. None if they will do.

    Args:
        pixels_NHWC: The decoded images, uint8.
        advice: What to do about it.
    """
    different = {pixels_HWC.tobytes() for pixels_HWC in pixels_NHWC if pixels_HWC.std(axis=(0, 1)).max() >= _BLANK}
    if len(different) >= ENOUGH_IMAGES:
        return None
    return (
        f"int8 was calibrated on {len(different)} different images (of {len(pixels_NHWC)}; blank ones do not count), "
        f"fewer than {ENOUGH_IMAGES}, so its embeddings may be less exact; {advice}"
    )


def _short(value: object) -> str:
    return "none" if value is None else str(value)[:16]


def _tensors(ranges: Mapping[str, Range]) -> dict[str, Tensor]:
    tensors = {}
    for name, found in ranges.items():
        tensors[name + _RANGE] = torch.tensor([found.scale, found.zero_point], dtype=torch.float64)
        if found.smooth_K is not None:
            tensors[name + _SMOOTH] = found.smooth_K
        if found.outliers_M is not None:
            tensors[name + _OUTLIERS] = found.outliers_M
    return tensors
