"""The ranges of a tower's 8-bit inputs, as a file: what they were measured on, and for which weights.

They are measured once, on images of the collection, and kept in the store: other ranges give other embeddings, so their
hash is part of the encoder's fingerprint.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from pipeline.durable.atomic import write_atomically
from pipeline.errors import InputError, first_line
from pipeline.model.hashing import hash_tensors
from pipeline.model.quantization.products import Range

_RANGE, _SMOOTH, _OUTLIERS = ".range", ".smooth", ".outliers"


class MadeOf(BaseModel):
    """What a calibration was measured on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """As a user names it."""

    image_weights_sha256: str
    adapter: str | None = None
    """SHA-256 of the adapter merged into the tower."""

    height: int
    width: int
    policy: str
    """Name of the policy that pruned the tower meanwhile."""

    num_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The range of each 8-bit input of an image tower, by the name of its layer."""

    ranges: Mapping[str, Range]
    made_of: MadeOf

    @property
    def sha256(self) -> str:
        """Hash of the ranges alone (hex): of all that changes an embedding."""
        return hash_tensors(_tensors(self.ranges).items())

    def packed(self) -> bytes:
        """As the bytes of a file."""
        return to_safetensors(_tensors(self.ranges), {"made_of": self.made_of.model_dump_json()})

    def write(self, path: Path) -> None:
        """Write to a file, at once and as a whole."""
        write_atomically(path, lambda temporary: temporary.write_bytes(self.packed()))

    def check(self, path: Path | str, wanted: MadeOf) -> None:
        """Refuse ranges of another tower. The policy and the number of images may differ.

        Raises:
            InputError: If they are of other weights, another adapter or another image size.
        """
        for name in ("image_weights_sha256", "adapter", "height", "width"):
            found, asked = getattr(self.made_of, name), getattr(wanted, name)
            if found != asked:
                raise InputError(
                    f"calibration {path} is of a tower with {name} {found} ({self.made_of.model}), but this one has "
                    f"{asked} ({wanted.model}); give the calibration of this model, or leave out --calibration"
                )


def read_calibration(path: Path) -> Calibration:
    """Read the file that a first run wrote.

    Raises:
        InputError: If it cannot be read, or is no calibration.
    """
    try:
        return unpack_calibration(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise InputError(
            f"calibration {path} cannot be read: {first_line(error)}; give the calibration.safetensors of a store"
        ) from error


def unpack_calibration(data: bytes) -> Calibration:
    """The calibration in the bytes of a file.

    Raises:
        SafetensorError, ValueError, KeyError: If it is none.
    """
    tensors = from_safetensors(data)
    length = int.from_bytes(data[:8], "little")
    made_of = json.loads(data[8 : 8 + length])["__metadata__"]["made_of"]
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
    return Calibration(ranges=ranges, made_of=MadeOf.model_validate_json(made_of))


def _tensors(ranges: Mapping[str, Range]) -> dict[str, Tensor]:
    tensors = {}
    for name, found in ranges.items():
        tensors[name + _RANGE] = torch.tensor([found.scale, found.zero_point], dtype=torch.float64)
        if found.smooth_K is not None:
            tensors[name + _SMOOTH] = found.smooth_K
        if found.outliers_M is not None:
            tensors[name + _OUTLIERS] = found.outliers_M
    return tensors
