"""From decoding to the encoder: move batches to its device, one batch ahead, and decode their JPEGs there."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.model.encode import Encoder
from pipeline.pixels.batch import DecodedBatch
from pipeline.pixels.decode import decode_all_but_jpegs, decode_batch, ending_this_process_after
from pipeline.pixels.nvjpeg import decode_jpegs, fit_tensors
from pipeline.pixels.read_ahead import read_ahead
from pipeline.source.entry import ImageEntry, ImageResult
from pipeline.source.limits import DEFAULT_MAX_PIXELS

_PIXELS_AT_ONCE = 2**26
"""Pixels decoded on the device per call. Each takes 3 bytes."""

_RESIZED_AT_ONCE = 2**24
"""Pixels of images of one size that are resized together. Each takes 12 bytes. A larger image is alone."""


class DeviceLoader:
    """Prepares batches for one encoder. On a CPU with nothing left to decode, batches pass unchanged."""

    def __init__(
        self,
        encoder: Encoder,
        decode_alone: Callable[[ImageEntry], DecodedBatch],
        timeout_s: float | None = None,
    ) -> None:
        """Prepare to load batches.

        Args:
            encoder: The encoder. Its spec names the decoder.
            decode_alone: Decodes one image that the device refuses, with Pillow.
            timeout_s: End this process if the device takes longer than this for a group of JPEGs.
        """
        self._encoder, self._decode_alone, self._timeout_s = encoder, decode_alone, timeout_s
        self._stream = encoder.copying
        self._passes = self._stream is None and encoder.spec.preprocess.decoder == "pillow"

    def batches(self, batches: Iterable[DecodedBatch]) -> Iterator[DecodedBatch]:
        """Yield the batches in order, ready to be encoded. The next one is prepared in the background."""
        if self._passes:
            return iter(batches)
        return read_ahead((self.load(batch) for batch in batches), depth=1)

    @torch.inference_mode()
    def load(self, batch: DecodedBatch) -> DecodedBatch:
        """Move one batch to the device. Images that the device refuses get new results from Pillow."""
        # on a separate stream, in parallel with the previous batch's kernels
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            pixels, results = self._encoder.to_device(batch.pixels), list(batch.results)
            if batch.jpegs:
                pixels = self._with_jpegs(batch, pixels, results)
            if self._stream:
                # from here on, only the encoder's stream reads it, and is done when `encode` returns
                self._stream.synchronize()
        return replace(batch, entries=(), pixels=pixels, results=results, jpegs={})

    def _with_jpegs(self, batch: DecodedBatch, others: Tensor, results: list[ImageResult]) -> Tensor:
        started = time.perf_counter()
        pixels = others.new_zeros((len(results), *others.shape[1:]))
        pixels[[slot for slot in range(len(results)) if slot not in batch.jpegs]] = others
        for slots in _groups(batch):
            with ending_this_process_after(self._timeout_s):
                images = decode_jpegs([batch.jpegs[slot] for slot in slots], self._encoder.device)
            decoded = {}
            for slot, image in zip(slots, images, strict=True):
                if image is not None and tuple(image.shape[:0:-1]) == (results[slot].width, results[slot].height):
                    decoded[slot] = image
                else:
                    alone = self._decode_alone(replace(batch.entries[slot], data=batch.jpegs[slot].tobytes()))
                    pixels[slot], [results[slot]] = torch.tensor(alone.pixels[0]), alone.results
            for same in _of_one_size(decoded):
                fitted = fit_tensors(torch.stack([decoded[slot] for slot in same]), self._encoder.spec.preprocess)
                pixels[torch.tensor(same, device=pixels.device)] = fitted
        self._encoder.transfer_s += time.perf_counter() - started
        return pixels


def decode_for(encoder: Encoder, entries: list[ImageEntry], max_pixels: int = DEFAULT_MAX_PIXELS) -> DecodedBatch:
    """Decode a batch in this process, with the decoder of the encoder's spec. The pixels are on its device."""
    preprocess = encoder.spec.preprocess
    loader = DeviceLoader(encoder, lambda entry: decode_batch([entry], preprocess, max_pixels))
    return loader.load(decode_all_but_jpegs(entries, preprocess, max_pixels))


def _groups(batch: DecodedBatch) -> Iterator[list[int]]:
    """Yield the slots of JPEGs in order, in groups of at most `_PIXELS_AT_ONCE` pixels (a larger image is alone)."""
    group, num_pixels = [], 0
    for slot in batch.jpegs:
        size = batch.results[slot].width * batch.results[slot].height
        if group and num_pixels + size > _PIXELS_AT_ONCE:
            yield group
            group, num_pixels = [], 0
        group.append(slot)
        num_pixels += size
    yield group


def _of_one_size(images: Mapping[int, Tensor]) -> Iterator[list[int]]:
    """Yield the slots in groups whose images have the same size, of at most `_RESIZED_AT_ONCE` pixels."""
    slots_of: dict[torch.Size, list[int]] = {}
    for slot, image in images.items():
        slots_of.setdefault(image.shape, []).append(slot)
    for (_, height, width), slots in slots_of.items():
        count = max(1, _RESIZED_AT_ONCE // (height * width))
        for start in range(0, len(slots), count):
            yield slots[start : start + count]
