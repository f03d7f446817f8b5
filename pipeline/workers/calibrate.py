"""Give a model in int8 its ranges: those that are known, or those that the first worker measures on a sample.

Plain functions that run and are tested without Ray.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from pipeline.errors import ConfigError, FingerprintMismatch, InputError
from pipeline.model.calibrate import calibrated, made_of, with_calibration
from pipeline.model.load import LoadedModel
from pipeline.model.precision import MIN_COSINE
from pipeline.model.pruning.policy import PruningPolicy, name_of
from pipeline.model.quantization.calibration import doubt_about, unpack_calibration
from pipeline.pixels.batch import DecodedBatch
from pipeline.source.entry import ImageEntry
from pipeline.source.sample import Sample
from pipeline.workers.messages import Calibrating, KnownCalibration

BATCH_SIZE = 32
"""Not the run's own, so that ranges do not depend on it."""

_ADVICE = "better embed into another --out with --calibration and the calibration.safetensors of a larger store"

Decode = Callable[[Iterable[Sequence[ImageEntry]]], Iterator[DecodedBatch]]


def with_known(loaded: LoadedModel, known: KnownCalibration) -> LoadedModel:
    """The model with ranges that were measured earlier.

    Raises:
        ConfigError: If the model is not in int8.
        FingerprintMismatch: If they are those of a store with another tower.
        InputError: If they were given and are of another tower.
    """
    if loaded.spec.precision != "int8":
        raise ConfigError(
            f"calibration = {known.path}: only int8 uses a calibration, but this run computes in "
            f"{loaded.spec.precision}; leave out --calibration"
        )
    calibration = unpack_calibration(known.data)
    misfit = calibration.misfit(made_of(loaded.spec, None, 0))
    if misfit and known.is_of_store:
        raise FingerprintMismatch(
            f"calibration {known.path}: {misfit}; choose another --out, or the same model, adapter and image size"
        )
    if misfit:
        raise InputError(
            f"calibration {known.path}: {misfit}; give the calibration of this model, or leave out --calibration"
        )
    return with_calibration(loaded, calibration)


def other_policy(loaded: LoadedModel, policy: PruningPolicy | None) -> str | None:
    """One line if the ranges were measured under another policy: nobody knows how close to float this one comes."""
    name = name_of(policy)
    if loaded.calibration is None or loaded.calibration.made_of.policy == name:
        return None
    return (
        f"the calibration was measured under policy {loaded.calibration.made_of.policy}, so min_cosine was not checked "
        f"for policy {name}; `clipsieve evaluate --precisions` measures what int8 costs"
    )


def measured(
    loaded: LoadedModel, policy: PruningPolicy | None, sample: Sample, decode: Decode, min_cosine: float = MIN_COSINE
) -> tuple[LoadedModel, Calibrating]:
    """The model in int8 with ranges measured on a sample, and what that took. Images that fail do not count.

    Args:
        loaded: The model in int8.
        policy: Prunes the tower meanwhile.
        sample: What to measure on.
        decode: Maps batches of entries to decoded batches, in order.
        min_cosine: See `calibrated`.

    Raises:
        InputError: If no image of the sample can be decoded.
        SourceUnavailable: If a server does not respond.
    """
    started = time.perf_counter()
    pixels_NHWC = _pixels_of(sample, decode)
    starts = range(0, len(pixels_NHWC), BATCH_SIZE)
    loaded = calibrated(loaded, policy, (pixels_NHWC[start : start + BATCH_SIZE] for start in starts), min_cosine)
    doubt = doubt_about(pixels_NHWC, _ADVICE)
    made = loaded.calibration.made_of
    return loaded, Calibrating(
        num_images=len(pixels_NHWC),
        seconds=time.perf_counter() - started,
        cosine=made.cosine,
        num_float_blocks=made.num_float_blocks,
        warning=doubt,
    )


def _pixels_of(sample: Sample, decode: Decode) -> np.ndarray:
    found, num_images, first = [], 0, ""
    for batch in decode(_batches(sample.images())):
        found.append(batch.pixels[batch.is_ok_B])
        num_images += len(batch.results)
        if not first and (failed := batch.first_failed()):
            first = f" (first {failed.key!r} is {failed.status.value}: {failed.error})"
    if not any(map(len, found)):
        what = f"none of {num_images} sampled images can be decoded{first}" if num_images else "no image can be read"
        raise InputError(
            f"int8 is calibrated on images of the source, but in {sample.source.location} {what}; correct the source, "
            "or give --calibration, or another --precision"
        )
    return np.concatenate(found)


def _batches(entries: Iterator[ImageEntry]) -> Iterator[list[ImageEntry]]:
    while batch := list(islice(entries, BATCH_SIZE)):
        yield batch
