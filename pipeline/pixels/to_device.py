"""From decoding to the encoder: batches are brought to its device one ahead of it, and their JPEGs decoded there."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from pipeline.model.encode import Encoder
from pipeline.pixels.decode import decode_all_but_jpegs, decode_batch, ending_this_process_after
from pipeline.pixels.nvjpeg import decode_jpegs, fit_tensor
from pipeline.pixels.read_ahead import read_ahead
from pipeline.source.entry import ImageEntry, ImageResult
from pipeline.source.limits import DEFAULT_MAX_PIXELS

_PIXELS_AT_ONCE = 2**26
"""How many are decoded on the device in one call: they take 3 bytes each, and 12 while one image is resized."""

HalfDecoded = tuple[np.ndarray, list[ImageResult], dict[int, np.ndarray], float]
"""What `decode.decode_all_but_jpegs` gives, and the seconds of a core it took."""

Decoded = tuple[np.ndarray | Tensor, list[ImageResult], float]
"""Pixels [B, H, W, 3], on the encoder's device or yet to be brought there; their records; the seconds of a core."""


class Ingest:
    """The way of batches to one encoder. On a CPU, with nothing left to decode, they pass as they are."""

    def __init__(
        self,
        encoder: Encoder,
        decode_alone: Callable[[ImageEntry], tuple[np.ndarray, ImageResult]],
        timeout_s: float | None = None,
    ) -> None:
        """`decode_alone` decodes what the device refuses; `timeout_s` ends this process where the device hangs."""
        self._encoder, self._decode_alone, self._timeout_s = encoder, decode_alone, timeout_s
        is_cuda = encoder.device.type == "cuda"
        self._passes = not is_cuda and encoder.spec.preprocess.decoder == "pillow"
        self._stream = torch.cuda.Stream(encoder.device) if is_cuda else None

    def batches(self, batches: Iterable[HalfDecoded]) -> Iterator[Decoded]:
        """The same batches in the same order, ready to be encoded; the next one is made ready meanwhile."""
        if self._passes:
            return ((pixels, records, seconds) for pixels, records, _, seconds in batches)
        return read_ahead(((*self.ready(*batch[:3]), batch[3]) for batch in batches), depth=1)

    @torch.inference_mode()
    def ready(
        self, pixels_KHWC: np.ndarray, records: Sequence[ImageResult], jpegs: Mapping[int, np.ndarray]
    ) -> tuple[Tensor, list[ImageResult]]:
        """One batch on the device, uint8 [B, H, W, 3]; records anew of images that the device refused."""
        # on a stream of its own, beside the kernels of the batch before
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            pixels, records = self._encoder.to_device(pixels_KHWC), list(records)
            if jpegs:
                pixels = self._with_jpegs(pixels, records, jpegs)
            if self._stream:
                # from here on the encoder's own stream reads it, which is done when `encode` returns
                self._stream.synchronize()
        return pixels, records

    def _with_jpegs(self, others: Tensor, records: list[ImageResult], jpegs: Mapping[int, np.ndarray]) -> Tensor:
        started = time.perf_counter()
        pixels = others.new_zeros((len(records), *others.shape[1:]))
        pixels[[slot for slot in range(len(records)) if slot not in jpegs]] = others
        for slots in _groups(records, jpegs):
            with ending_this_process_after(self._timeout_s):
                images = decode_jpegs([jpegs[slot] for slot in slots], self._encoder.device)
            for slot, image in zip(slots, images, strict=True):
                if image is not None and tuple(image.shape[:0:-1]) == (records[slot].width, records[slot].height):
                    pixels[slot] = fit_tensor(image, self._encoder.spec.preprocess)
                else:
                    instead, records[slot] = self._decode_alone(_entry(records[slot], jpegs[slot]))
                    pixels[slot] = torch.tensor(instead)
        self._encoder.transfer_s += time.perf_counter() - started
        return pixels


def decode_for(
    encoder: Encoder, entries: Sequence[ImageEntry], max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[Tensor, list[ImageResult]]:
    """Decode a batch in this process, by what the encoder's spec names: uint8 [B, H, W, 3], and a record each."""
    preprocess = encoder.spec.preprocess

    def decode_alone(entry: ImageEntry) -> tuple[np.ndarray, ImageResult]:
        [pixels], [record] = decode_batch([entry], preprocess, max_pixels)
        return pixels, record

    return Ingest(encoder, decode_alone).ready(*decode_all_but_jpegs(entries, preprocess, max_pixels))


def _groups(records: Sequence[ImageResult], jpegs: Mapping[int, np.ndarray]) -> Iterator[list[int]]:
    """The slots of JPEGs in turn, together as many as fit."""
    group, num_pixels = [], 0
    for slot in jpegs:
        size = records[slot].width * records[slot].height
        if group and num_pixels + size > _PIXELS_AT_ONCE:
            yield group
            group, num_pixels = [], 0
        group.append(slot)
        num_pixels += size
    yield group


def _entry(record: ImageResult, data: np.ndarray) -> ImageEntry:
    return ImageEntry(record.key, record.uri, data.size, 0, record.caption, record.extra, data.tobytes())
