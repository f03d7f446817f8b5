"""`clipsieve inspect`: what a policy does to a model, block by block, and to a photo, patch by patch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.model.calibrate import calibrated
from pipeline.model.device import pick_device, precision_on, use_all_cores
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import LoadedModel, load_model
from pipeline.model.pruning.cost import block_costs
from pipeline.model.pruning.policy import UNPRUNED, PruningPolicy
from pipeline.model.towers.families import view_of
from pipeline.pixels.decode import decode_batch
from pipeline.source.entry import ImageEntry
from query.pictures.overlay import write_overlay
from query.settings import InspectSettings


def inspect(settings: InspectSettings) -> tuple[dict[str, Any], Callable[[], None] | None]:
    """Break down what a policy costs on a model, and find the patches it keeps if an image is given.

    Returns:
        Tokens and multiply-adds of each block, their total, and those of the unpruned tower; and a function that
        writes the picture of the kept patches, or None without an image.

    Raises:
        InputError: If the model cannot be loaded, its tower cannot be pruned, or the image cannot be decoded.
        ConfigError: If the device is not available or does not compute the precision, or the policy does not fit.
    """
    policy = settings.pruning_policy()
    source = settings.model_source() if settings.image else settings.any_weights()
    use_all_cores()
    device = pick_device(settings.device)
    precision = precision_on(device, settings.precision)
    # without a photo, nothing depends on the precision
    loaded = load_model(source, precision if settings.image else "fp32", device)
    pixels = _pixels(settings, loaded) if settings.image else None
    if loaded.spec.precision == "int8":
        loaded = calibrated(loaded, policy, [pixels[None]])
    tower = view_of(loaded.clip.visual)
    unpruned, encoder = Encoder(sharing_weights(loaded), None), Encoder(sharing_weights(loaded), policy)
    preprocess = loaded.spec.preprocess
    write = None
    if pixels is not None:
        write = partial(write_overlay, settings.picture, pixels, tower.grid, _kept(loaded, policy, pixels))
    costs = zip(block_costs(tower, policy), block_costs(tower, None), strict=True)
    found = {
        "model": settings.model,
        "policy": policy.model_dump() if policy else {"name": UNPRUNED},
        "image_size": [preprocess.height, preprocess.width],
        "grid": list(tower.grid),
        "blocks": [
            {
                "block": number,
                "patches": cost.num_patches,
                "tokens": cost.num_tokens,
                "gmacs": cost.macs / 1e9,
                "cut_gmacs": cost.cut_macs / 1e9,
                "unpruned_gmacs": whole.macs / 1e9,
            }
            for number, (cost, whole) in enumerate(costs)
        ],
        "gmacs": encoder.gmacs,
        "unpruned_gmacs": unpruned.gmacs,
        "theoretical": unpruned.gmacs / encoder.gmacs,
    }
    return found, write


def _pixels(settings: InspectSettings, loaded: LoadedModel) -> np.ndarray:
    entry = ImageEntry(settings.image.name, settings.image.absolute().as_uri(), num_bytes=0, mtime_ns=0)
    batch = decode_batch([entry], loaded.spec.preprocess)
    failed = batch.first_failed()
    if failed:
        raise InputError(f"cannot decode {settings.image}: {failed.status}: {failed.error}; give another --image")
    return batch.pixels[0]


def _kept(loaded: LoadedModel, policy: PruningPolicy | None, pixels_HWC: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """For each cut: the block that follows it, and the positions of the patches it keeps."""
    kept: list[tuple[int, np.ndarray]] = []
    encoder = Encoder(
        sharing_weights(loaded), policy, lambda number, places_BK: kept.append((number, places_BK[0].cpu().numpy()))
    )
    encoder.encode(pixels_HWC[None])
    return kept
