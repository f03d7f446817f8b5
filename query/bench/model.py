"""`clipsieve bench model`: times the image tower under policies, next to the unpruned tower and open_clip's call.

Condition `open_clip` is the model as a user would call it: images already normalised, `encode_image` in inference
mode. Condition `none` is our tower without a policy, including the normalisation of uint8 pixels; it is the baseline of
every ratio. Weights do not affect speed, so an open_clip name without a tag gets random ones.
"""

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
from pipeline.model.device import default_batch_size, device_name, pick_device, pick_precision, use_all_cores
from pipeline.model.encode import Encoder, compile_tower, sharing_weights
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import UNPRUNED
from query.settings import BenchModelSettings

OPEN_CLIP = "open_clip"


def bench_model(settings: BenchModelSettings) -> dict[str, Any]:
    """Time the tower under each policy.

    Returns:
        The results as written to JSON: one entry per condition, with the median and range of images per second, peak
        bytes, GMACs, and measured and theoretical speed-up over `none`.

    Raises:
        ConfigError: If the device is not available, or a policy does not fit the tower.
        InputError: If the model cannot be loaded, or its tower cannot be pruned.
    """
    use_all_cores()
    device = pick_device(settings.device)
    precision = pick_precision(settings.precision, device)
    loaded = load_model(settings.any_weights(), precision, device)
    policies = {UNPRUNED: None} | {policy.name: policy for policy in settings.pruning_policies().values()}
    towers = {name: sharing_weights(loaded) for name in policies}
    encoders = {name: Encoder(towers[name], policy) for name, policy in policies.items()}
    batch_size = settings.batch_size or default_batch_size(device)
    height, width = loaded.spec.preprocess.height, loaded.spec.preprocess.width
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, height, width, 3), dtype=np.uint8)
    if settings.compile_tower:
        for tower in towers.values():
            compile_tower(tower)
    calls = {OPEN_CLIP: open_clip_call(sharing_weights(loaded), pixels, settings.compile_tower)}
    calls |= {name: tower_call(encoder, pixels) for name, encoder in encoders.items()}
    repeated = {name: lambda c=call: [c() for _ in range(settings.batches)] for name, call in calls.items()}
    seconds = interleaved_seconds(repeated, settings.rounds, device.type)
    images = batch_size * settings.batches
    rates = {name: [images / value for value in values] for name, values in seconds.items()}
    conditions = []
    for name, call in calls.items():
        encoder = encoders.get(name, encoders[UNPRUNED])
        measured, theoretical = median_speedup(rates, name, UNPRUNED), encoders[UNPRUNED].gmacs / encoder.gmacs
        conditions.append(
            {
                "name": name,
                "images_per_second": median_rates(rates)[name],
                "range": [min(rates[name]), max(rates[name])],
                "gmacs": encoder.gmacs,
                "measured": measured,
                "theoretical": theoretical,
                "peak_bytes": peak_bytes(call, device.type),
            }
        )
    return {
        "model": settings.model,
        "image_size": [height, width],
        "precision": precision,
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
