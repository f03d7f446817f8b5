"""Find how a model in int8 rounds its activations, on images, and how close its embeddings then are to float."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import LoadedModel
from pipeline.model.precision import MIN_COSINE
from pipeline.model.pruning.policy import PruningPolicy, name_of
from pipeline.model.quantization.calibration import Calibration, unpack_calibration
from pipeline.model.quantization.coverage import coverage_of
from pipeline.model.quantization.packed import MadeOf
from pipeline.model.quantization.products import Range
from pipeline.model.quantization.tower import TowerObserver, without_blocks
from pipeline.model.spec import EncoderSpec
from pipeline.model.towers.families import blocks_of
from pipeline.model.transform import PixelScaling


def calibrated(
    loaded: LoadedModel,
    policy: PruningPolicy | None,
    batches_BHWC: Iterable[np.ndarray],
    min_cosine: float = MIN_COSINE,
) -> LoadedModel:
    """A model in int8 with the ranges of its activations, measured on images in float32.

    Under a pruning policy, rounding can change which tokens a cut keeps, and an embedding then changes more than by
    rounding alone. The first blocks stay in float, as many as it takes to keep embeddings close to those in float.

    Args:
        loaded: The model in int8.
        policy: Prunes the tower meanwhile. Ranges found with one policy can be used with another.
        batches_BHWC: uint8 pixels at the tower's input size.
        min_cosine: Least mean cosine of an embedding in int8 to the one in float. 0 leaves no block in float.
    """
    batches_BHWC = list(batches_BHWC)
    ranges, units = _observed(loaded, policy, batches_BHWC)
    tower = blocks_of(loaded.clip.visual)
    for num_float_blocks in range(len(tower.blocks) + 1 if tower else 1):
        calibration = _with_float_blocks(loaded, policy, ranges, num_float_blocks, sum(map(len, batches_BHWC)))
        found = with_calibration(loaded, calibration)
        encoder = Encoder(sharing_weights(found), policy)
        cosines = [
            (encoder.encode(pixels) * unit).sum(axis=1) for pixels, unit in zip(batches_BHWC, units, strict=True)
        ]
        cosine = float(np.concatenate(cosines).mean())
        if cosine >= min_cosine:
            break
    made = calibration.made_of.model_copy(update={"cosine": round(cosine, 4)})
    return replace(found, calibration=replace(calibration, made_of=made))


def _observed(
    loaded: LoadedModel, policy: PruningPolicy | None, batches_BHWC: Sequence[np.ndarray]
) -> tuple[dict[str, Range], list[np.ndarray]]:
    """The ranges of all layers, and the unit embeddings in float32 of each batch."""
    visual, units = sharing_weights(loaded).clip.visual, []
    scaling = PixelScaling(loaded.spec.preprocess, loaded.device, torch.float32)
    observer = TowerObserver(visual, policy, coverage_of(visual, _size(loaded)), loaded.summary_offsets_LD)
    with torch.no_grad():
        for pixels_BHWC in batches_BHWC:
            features: Tensor = visual(scaling(torch.from_numpy(pixels_BHWC)))
            units.append(nn.functional.normalize(features, dim=-1).numpy())
        return observer.ranges(), units


def _with_float_blocks(
    loaded: LoadedModel,
    policy: PruningPolicy | None,
    ranges: dict[str, Range],
    num_float_blocks: int,
    num_images: int,
) -> Calibration:
    coverage = coverage_of(loaded.clip.visual, _size(loaded), num_float_blocks)
    kept = without_blocks(ranges, coverage, num_float_blocks) if num_float_blocks else ranges
    return Calibration(ranges=kept, made_of=made_of(loaded.spec, policy, num_images, num_float_blocks))


def _size(loaded: LoadedModel) -> tuple[int, int]:
    return loaded.spec.preprocess.height, loaded.spec.preprocess.width


def with_calibration(loaded: LoadedModel, calibration: Calibration) -> LoadedModel:
    """A model in int8 with ranges that were measured earlier."""
    return replace(
        loaded, calibration=calibration, spec=loaded.spec.model_copy(update={"calibration": calibration.sha256})
    )


def with_packed(loaded: LoadedModel, data: bytes | None) -> LoadedModel:
    """A model with the ranges in the bytes of a store's file; a model that needs none stays as it is."""
    return with_calibration(loaded, unpack_calibration(data)) if data else loaded


def made_of(spec: EncoderSpec, policy: PruningPolicy | None, num_images: int, num_float_blocks: int = 0) -> MadeOf:
    """What a calibration of this encoder is measured on."""
    return MadeOf(
        model=spec.source.model,
        image_weights_sha256=spec.image_weights_sha256,
        adapter=spec.adapter,
        height=spec.preprocess.height,
        width=spec.preprocess.width,
        policy=name_of(policy),
        num_images=num_images,
        num_float_blocks=num_float_blocks,
    )
