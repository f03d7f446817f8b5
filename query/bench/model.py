"""`clipsieve bench model`: times the image tower under policies, next to the unpruned tower and open_clip's call.

Condition `open_clip` is the model as a user would call it: images already normalised, `encode_image` in inference
mode. Condition `none` is our tower without a policy, including the normalisation of uint8 pixels; it is the baseline of
every ratio. Weights do not affect speed, so an open_clip name without a tag gets random ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.measure.provenance import provenance
from pipeline.measure.timing import (
    interleaved_seconds,
    median_rates,
    median_speedup,
    open_clip_call,
    peak_bytes,
    tower_call,
)
from pipeline.model.device import default_batch_size, device_name, pick_device, use_all_cores
from pipeline.model.encode import Encoder, compile_tower, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning.names import OPEN_CLIP, UNPRUNED
from query.settings import BenchModelSettings

_UNPRUNED = 1  # the place of the unpruned tower among the conditions


def bench_model(settings: BenchModelSettings) -> dict[str, Any]:
    """Time the tower under each policy.

    Returns:
        The results as written to JSON: one entry per condition, with its policy, the median and range of images per
        second, peak bytes, GMACs, and measured and theoretical speed-up over `none`. `open_clip` and `none` come first.

    Raises:
        ConfigError: If the device is not available, or a policy does not fit the tower.
        InputError: If the model cannot be loaded, or its tower cannot be pruned.
    """
    use_all_cores()
    device = pick_device(settings.device)
    loaded = load_model(settings.any_weights(), settings.precision, device, settings.batch_size)
    policies = [None, *settings.pruning_policies().values()]
    towers = [sharing_weights(loaded) for _ in policies]
    encoders = [Encoder(tower, policy) for tower, policy in zip(towers, policies, strict=True)]
    batch_size = settings.batch_size or default_batch_size(device)
    height, width = loaded.spec.preprocess.height, loaded.spec.preprocess.width
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, height, width, 3), dtype=np.uint8)
    if settings.compile_tower:
        for tower in towers:
            compile_tower(tower)
    call = open_clip_call(sharing_weights(loaded), pixels, settings.compile_tower)
    rows = [_Row(OPEN_CLIP, encoders[0], call)]
    rows += [_Row(_name_of(encoder), encoder, tower_call(encoder, pixels)) for encoder in encoders]
    conditions = _timed(rows, settings, batch_size)
    return {
        "model": settings.model,
        "image_size": [height, width],
        "precision": loaded.spec.precision,
        "batch_size": batch_size,
        "compiled": settings.compile_tower,
        "conditions": conditions,
        "environment": {
            **provenance(),
            "device": device_name(device),
            "rounds": settings.rounds,
            "batches": settings.batches,
        },
    }


@dataclass(frozen=True, slots=True)
class _Row:
    """One condition: known by its place in the list of rows, because names may repeat."""

    name: str
    encoder: Encoder
    call: Callable[[], object]


def _name_of(encoder: Encoder) -> str:
    return encoder.spec.policy.name if encoder.spec.policy else UNPRUNED


def _timed(rows: list[_Row], settings: BenchModelSettings, batch_size: int) -> list[dict[str, Any]]:
    device = rows[0].encoder.device.type
    repeated = {
        place: lambda call=row.call: [call() for _ in range(settings.batches)] for place, row in enumerate(rows)
    }
    seconds = interleaved_seconds(repeated, settings.rounds, device)
    images = batch_size * settings.batches
    rates = {place: [images / value for value in values] for place, values in seconds.items()}
    medians, unpruned = median_rates(rates), rows[_UNPRUNED].encoder.gmacs
    return [
        {
            "name": row.name,
            "policy": policy.model_dump() if (policy := row.encoder.spec.policy) else None,
            "images_per_second": medians[place],
            "range": [min(rates[place]), max(rates[place])],
            "gmacs": row.encoder.gmacs,
            "measured": median_speedup(rates, place, _UNPRUNED),
            "theoretical": unpruned / row.encoder.gmacs,
            "peak_bytes": peak_bytes(row.call, device),
        }
        for place, row in enumerate(rows)
    ]
