"""Calibrations of a sweep: how the towers in int8 round, measured once on a sample of images, and kept.

Shapes: N images.
"""

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import InputError
from pipeline.model.calibrate import calibrated, made_of, with_calibration
from pipeline.model.load import LoadedModel, with_policy
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.quantization.calibration import Calibration, doubt_about, read_calibration
from pipeline.model.spec import Preprocess
from pipeline.pixels.decode import decode_batch
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.folder import list_images
from query.evaluation.data.data_set import DataSet
from query.evaluation.grid.keys import CalibrationKeys
from query.evaluation.running.kept.images import Image, hash_of, look_at
from query.evaluation.running.kept.work import Work, is_made_of, note_made_of

KIND = "calibrations"
_BATCH = 32
_ADVICE = "name a folder of more by the key `calibration`"


@dataclass(slots=True)
class Calibrations:
    """The calibrations of a sweep, one for each encoder in int8."""

    keys: CalibrationKeys
    data: DataSet
    """Its images are the sample, unless the grid names others."""
    work: Work
    again: bool = False
    """Whether those that are kept are measured again."""
    _sample: list[tuple[ImageEntry, Image]] | None = None
    _first: Preprocess | None = None
    """What the sample was first decoded for."""
    _pixels: dict[Preprocess, np.ndarray] = field(default_factory=dict)
    _found: dict[str, Calibration] = field(default_factory=dict)

    def calibrated(self, loaded: LoadedModel, policy: PruningPolicy | None) -> LoadedModel:
        """A model with its calibration for a policy. Models in other precisions need none and are returned as they are.

        Raises:
            InputError: If the images or the file cannot be used. The message names them.
        """
        if loaded.spec.precision != "int8":
            return loaded
        if self.keys.file:
            calibration = read_calibration(self.keys.file)
            if misfit := calibration.misfit(made_of(loaded.spec, policy, 0)):
                raise InputError(
                    f"calibration {self.keys.file}: {misfit}; give the calibration of this model, or `images` to "
                    "calibrate on"
                )
            return with_calibration(loaded, calibration)
        name = with_policy(loaded.spec, policy).fingerprint
        if name not in self._found:
            self._found[name] = self._kept(loaded, name) or self._measured(loaded, policy, name)
        return with_calibration(loaded, self._found[name])

    def warnings(self) -> list[str]:
        """A warning if too few images of the sample differ. Call it when all models have their calibrations."""
        if self._first is None:
            return []
        doubt = doubt_about(self._decoded(self._first), _ADVICE)
        return [doubt] if doubt else []

    def _kept(self, loaded: LoadedModel, name: str) -> Calibration | None:
        """That of an earlier run, if it was measured on the same images in the same environment."""
        if self.again or not is_made_of(self.work.folder.calibrations, name, self._made_of(loaded)):
            return None
        with suppress(InputError):  # a damaged one is measured again
            found = read_calibration(self.work.folder.calibration(name))
            self.work.tally.kept[KIND] += 1
            return found
        return None

    def _measured(self, loaded: LoadedModel, policy: PruningPolicy | None, name: str) -> Calibration:
        found = calibrated(loaded, policy, self._batches(loaded.spec.preprocess), self.keys.min_cosine).calibration
        self.work.folder.calibrations.mkdir(parents=True, exist_ok=True)
        found.write(self.work.folder.calibration(name))
        note_made_of(self.work.folder.calibrations, name, self._made_of(loaded))
        self.work.tally.measured[KIND] += 1
        return found

    def _made_of(self, loaded: LoadedModel) -> dict[str, object]:
        images = [image for _, image in self._sampled(loaded.spec.preprocess)]
        made_of = {"images_sha256": hash_of(images), "environment_key": self.work.environment_key}
        return made_of | {"min_cosine": self.keys.min_cosine}

    def _decoded(self, preprocess: Preprocess) -> np.ndarray:
        if preprocess not in self._pixels:
            batch = decode_batch([entry for entry, _ in self._sampled(preprocess)], preprocess)
            self._pixels[preprocess] = batch.pixels[batch.is_ok_B]
        return self._pixels[preprocess]

    def _batches(self, preprocess: Preprocess) -> Iterator[np.ndarray]:
        pixels_NHWC = self._decoded(preprocess)
        for start in range(0, len(pixels_NHWC), _BATCH):
            yield pixels_NHWC[start : start + _BATCH]

    def _sampled(self, preprocess: Preprocess) -> list[tuple[ImageEntry, Image]]:
        """The images of the sample that can be decoded."""
        if self._sample is None:
            every = list_images(self.keys.images)[0] if self.keys.images else self.data.entries[: self.data.num_own]
            num_images = min(self.keys.num_images, len(every))
            places = sorted(random.Random(self.keys.seed).sample(range(len(every)), num_images))
            entries = [every[place] for place in places]
            path = self.work.folder.calibrations / "images.parquet"
            images = look_at(entries, preprocess, path, self.work.on_tick)
            both = zip(entries, images, strict=True)
            self._first = preprocess
            self._sample = [(entry, image) for entry, image in both if image.error is None]
            if not self._sample:
                where = self.keys.images or f"the data set {self.data.name!r}"
                raise InputError(
                    f"none of the {num_images} images of {where} that int8 is calibrated on can be decoded; the first "
                    f"is {images[0].key!r}: {images[0].error}; name other images by the key `calibration`"
                )
        return self._sample
