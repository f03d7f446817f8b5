"""Training data for an adapter: images and captions, in an order determined by seed and step. Does not use torch."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.machine import num_cores
from pipeline.model.spec import Preprocess
from pipeline.pixels.batch import DecodedBatch
from pipeline.pixels.decode import decode_batch
from pipeline.pixels.resize import crop_and_resize
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.captions import list_captioned
from pipeline.source.formats.folder import list_images

BATCHES_AHEAD = 4
MIN_IMAGES = 20


@dataclass(frozen=True, slots=True)
class Batch:
    """Images to decode: their rows in the examples, and the random choices for each in a training step."""

    rows_B: np.ndarray
    captions_B: np.ndarray | None = None
    """Index of the caption used for each image."""

    boxes_B4: np.ndarray | None = None
    """Crop box of each image: left, top, right, bottom as fractions of its sides."""

    is_mirrored_B: np.ndarray | None = None

    def only(self, is_good_B: np.ndarray) -> "Batch":
        """The same batch with only the good images."""
        return Batch(self.rows_B[is_good_B], self.captions_B[is_good_B])


@dataclass(frozen=True, slots=True)
class Examples:
    """Images for training and validation. The held-out images come last."""

    entries: list[ImageEntry]
    captions: list[list[str]]
    """Captions of each image; empty if the training is label-free."""

    num_held_out: int

    @property
    def num_training(self) -> int:
        """Number of training images."""
        return len(self.entries) - self.num_held_out

    @property
    def held_out(self) -> np.ndarray:
        """Rows of the validation images."""
        return np.arange(self.num_training, len(self.entries))

    def batch(self, step: int, batch_size: int, seed: int, crop_area: float, mirrors: bool) -> Batch:
        """The images of a step. Every epoch uses each image once, in a different order.

        Args:
            step: Step number, from 0.
            batch_size: Number of images.
            seed: Seed for all random choices.
            crop_area: Smallest share of an image's area to crop, (0, 1]; 1 disables cropping.
            mirrors: Whether to mirror each image with probability 1/2.
        """
        first = step * batch_size
        rows = []
        for epoch in range(first // self.num_training, (first + batch_size - 1) // self.num_training + 1):
            start = epoch * self.num_training
            order = np.random.default_rng((seed, epoch)).permutation(self.num_training)
            rows.append(order[max(0, first - start) : first + batch_size - start])
        rows_B = np.concatenate(rows)
        rng = np.random.default_rng((seed, step, 1))
        draws = rng.random(batch_size)
        return Batch(
            rows_B=rows_B,
            captions_B=np.array([int(draw * len(self.captions[row])) for draw, row in zip(draws, rows_B, strict=True)]),
            boxes_B4=_boxes(rng, batch_size, crop_area) if crop_area < 1 else None,
            is_mirrored_B=rng.random(batch_size) < 0.5 if mirrors else None,
        )

    def fingerprint(self) -> str:
        """Hash of the training and validation data: keys, file sizes, captions."""
        digest = hashlib.sha256(str(self.num_held_out).encode())
        for entry, captions in zip(self.entries, self.captions, strict=True):
            digest.update(repr((entry.key, entry.num_bytes, captions)).encode())
        return digest.hexdigest()


def gather(folder: Path, captions_file: Path | None, num_held_out: int, seed: int) -> Examples:
    """Collect the images of a folder; with a captions file, only those with captions.

    Raises:
        InputError: If captions and images do not match, or there are too few images.
    """
    captions: dict[str, list[str]] = {}
    if captions_file:
        entries, captions = list_captioned(folder, captions_file)
        entries = [entry for entry in entries if entry.caption]
    else:
        entries, _ = list_images(folder)
    _refuse_few(len(entries), f"with captions in {captions_file}" if captions_file else f"in {folder}")
    num_held_out = min(num_held_out, len(entries) // 5)
    order = np.random.default_rng(seed).permutation(len(entries))
    held_out, training = sorted(order[:num_held_out]), sorted(order[num_held_out:])
    entries = [entries[row] for row in (*training, *held_out)]
    return Examples(entries, [captions.get(entry.key, []) for entry in entries], num_held_out)


class Decoder:
    """Decodes batches on threads, a few batches ahead (Pillow releases the GIL)."""

    def __init__(self, examples: Examples, preprocess: Preprocess) -> None:
        self._examples, self._preprocess = examples, preprocess
        self._threads = ThreadPoolExecutor(max(1, num_cores() // 2), thread_name_prefix="decode")

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def ahead(self, batches: Iterator[Batch]) -> Iterator[DecodedBatch]:
        """Yield decoded batches, in order."""
        waiting: list[Future] = []
        for batch in batches:
            waiting.append(self._threads.submit(self._decode, batch))
            if len(waiting) > BATCHES_AHEAD:
                yield waiting.pop(0).result()
        yield from (future.result() for future in waiting)

    def refuse_few(self) -> None:
        """Decode images until there are enough to train and validate on.

        Raises:
            InputError: If too few images can be decoded. The message names the first that cannot.
        """
        count, bad = 0, None
        rows_N = np.arange(len(self._examples.entries))
        batches = (Batch(rows_N[first : first + MIN_IMAGES]) for first in range(0, len(rows_N), MIN_IMAGES))
        for decoded in self.ahead(batches):
            count += int(decoded.is_ok_B.sum())
            bad = bad or decoded.first_failed()
            if count >= MIN_IMAGES:
                return
        raise InputError(
            f"only {count} of {len(rows_N)} images can be decoded ({bad.key}: {bad.error}): training and validation "
            f"need at least {MIN_IMAGES}; fix the data, or add more"
        )

    def _decode(self, batch: Batch) -> DecodedBatch:
        decoded = decode_batch([self._examples.entries[row] for row in batch.rows_B], self._preprocess)
        pixels_BHWC = decoded.pixels
        if batch.boxes_B4 is not None:
            for slot, box in enumerate(batch.boxes_B4):
                pixels_BHWC[slot] = crop_and_resize(pixels_BHWC[slot], box)
        if batch.is_mirrored_B is not None:
            pixels_BHWC[batch.is_mirrored_B] = pixels_BHWC[batch.is_mirrored_B, :, ::-1]
        return decoded


def _boxes(rng: np.random.Generator, count: int, least_area: float) -> np.ndarray:
    """Random crop boxes: areas uniform from `least_area` to 1, sides within about a fifth of each other in length."""
    area, stretch = rng.uniform(least_area, 1, count), np.exp(rng.uniform(-0.1, 0.1, count))
    sides_B2 = np.minimum(1, np.stack([np.sqrt(area) * stretch, np.sqrt(area) / stretch], axis=1))
    corners_B2 = rng.random((count, 2)) * (1 - sides_B2)
    return np.concatenate([corners_B2, corners_B2 + sides_B2], axis=1)


def _refuse_few(count: int, what: str) -> None:
    if count < MIN_IMAGES:
        raise InputError(f"{count} images {what}: training and validation need at least {MIN_IMAGES}; add more")
