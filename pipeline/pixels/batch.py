"""A batch on its way from files to the encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from pipeline.source.entry import ImageEntry, ImageResult

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedBatch:
    """Images as pixels, or as JPEGs that a device will decode. B slots, one per entry."""

    entries: Sequence[ImageEntry] = ()
    """The entries, while there are `jpegs`: the device may refuse one. They can hold the bytes of whole files."""

    pixels: "np.ndarray | Tensor"
    """uint8 [B, H, W, 3], zeros where an image failed. While there are `jpegs`, only the other slots, in order."""

    results: Sequence[ImageResult]
    """One result per image, in the order of the entries."""

    jpegs: Mapping[int, np.ndarray] = field(default_factory=dict)
    """Encoded bytes, uint8 [N], of the images left to the device, by slot."""

    cpu_s: float = 0.0
    """CPU time spent on decoding so far, in seconds."""

    @classmethod
    def joined(cls, parts: Sequence["DecodedBatch"]) -> "DecodedBatch":
        """One batch of several that are not on a device yet, in order and without entries."""
        if len(parts) == 1:
            return parts[0]
        starts = accumulate((len(part.results) for part in parts[:-1]), initial=0)
        jpegs = {
            start + slot: jpeg for start, part in zip(starts, parts, strict=True) for slot, jpeg in part.jpegs.items()
        }
        return cls(
            pixels=np.concatenate([part.pixels for part in parts]),
            results=[result for part in parts for result in part.results],
            jpegs=jpegs,
            cpu_s=sum(part.cpu_s for part in parts),
        )

    @property
    def is_ok_B(self) -> np.ndarray:
        """Which images were decoded: bool [B]."""
        return np.array([result.is_ok for result in self.results], dtype=bool)

    @property
    def num_failed(self) -> int:
        """Number of images without pixels."""
        return sum(not result.is_ok for result in self.results)

    def first_failed(self) -> ImageResult | None:
        """The first image without pixels, or None."""
        return next((result for result in self.results if not result.is_ok), None)
