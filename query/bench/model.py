"""`clipsieve bench model`: times the image tower under policies and precisions, next to open_clip's own call.

Condition `open_clip` is the model as a user would call it: images already normalised, `encode_image` in inference
mode. Condition `none` is our tower without a policy, including the normalisation of uint8 pixels; in the first
precision, it is the baseline of every ratio. Weights do not affect speed, so an open_clip name without a tag gets
random ones, and 8-bit towers are calibrated on noise.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.measure.provenance import provenance
from pipeline.measure.timing import (
    interleaved_seconds,
    median_rates,
    median_speedup,
    open_clip_call,
    peak_bytes,
    tower_call,
)
from pipeline.model.calibrate import calibrated
from pipeline.model.device import default_batch_size, device_name, pick_device, use_all_cores
from pipeline.model.encode import Encoder, compile_tower, sharing_weights
from pipeline.model.load import LoadedModel, load_model
from pipeline.model.precision import Precision, PrecisionChoice
from pipeline.model.pruning.names import OPEN_CLIP, UNPRUNED
from pipeline.model.pruning.policy import PruningPolicy, name_of
from query.settings import BenchModelSettings

_EIGHT_BITS = ("int8", "fp8")
_NUM_NOISE = 32
"""Images of noise that an 8-bit tower is calibrated on."""


def bench_model(settings: BenchModelSettings) -> dict[str, Any]:
    """Time the tower under each policy in each precision.

    If one has 8 bits, open_clip's call is timed in fp32 and in the fastest float type, too.

    Returns:
        The results as written to JSON: one entry per condition, with its policy and precision, the median and range of
        images per second, peak bytes, GMACs, and measured and theoretical speed-up over `none` in the first precision.
        `over_float` is the speed-up of an 8-bit condition over the same policy in the fastest float type that was
        timed, None where there is none; `over_open_clip` is that over open_clip's fastest call. The rows of `open_clip`
        come first, then `none` and the policies, precision by precision.

    Raises:
        ConfigError: If the device is not available, a policy does not fit the tower, or int8 is to be compiled.
        InputError: If the model cannot be loaded, or its tower cannot be pruned.
    """
    use_all_cores()
    models = _Models(settings)
    batch_size = settings.batch_size or default_batch_size(models.device)
    shown = models.distinct(settings.precisions())
    preprocess = shown[0].spec.preprocess
    pixels = _noise(batch_size, preprocess.height, preprocess.width)
    policies = [None, *settings.pruning_policies().values()]
    towers = [_tower(settings, loaded, policy, pixels) for loaded in shown for policy in policies]
    unpruned = {tower.precision: tower.encoder for tower in reversed(towers) if tower.name == UNPRUNED}
    rows = []
    for loaded in models.of_open_clip(shown):
        call = open_clip_call(sharing_weights(loaded), pixels, settings.compile_tower)
        encoder = unpruned.get(loaded.spec.precision, towers[0].encoder)
        rows.append(_Row(OPEN_CLIP, loaded.spec.precision, encoder, call))
    conditions = _timed([*rows, *towers], settings, batch_size)
    return {
        "model": settings.model,
        "image_size": [preprocess.height, preprocess.width],
        "precision": shown[0].spec.precision,
        "batch_size": batch_size,
        "compiled": settings.compile_tower,
        "conditions": conditions,
        "environment": {
            **provenance(),
            "device": device_name(models.device),
            "rounds": settings.rounds,
            "batches": settings.batches,
        },
    }


@dataclass(frozen=True, slots=True)
class _Row:
    """One condition: known by its place in the list of rows, because names may repeat."""

    name: str
    precision: Precision
    encoder: Encoder
    call: Callable[[], object]

    @property
    def has_8_bits(self) -> bool:
        return self.precision in _EIGHT_BITS


class _Models:
    """The model in each precision, loaded once."""

    def __init__(self, settings: BenchModelSettings) -> None:
        self.device = pick_device(settings.device)
        self._settings = settings
        self._loaded: dict[PrecisionChoice, LoadedModel] = {}

    def load(self, precision: PrecisionChoice) -> LoadedModel:
        """The model in a precision; in that of another choice, if both stand for the same."""
        if precision not in self._loaded:
            settings = self._settings
            loaded = load_model(settings.any_weights(), precision, self.device, settings.batch_size)
            self._loaded[precision] = self._loaded.setdefault(loaded.spec.precision, loaded)
        return self._loaded[precision]

    def distinct(self, precisions: Iterable[PrecisionChoice]) -> list[LoadedModel]:
        """The model in each precision, each once: `auto` may stand for another that is named."""
        found = [self.load(precision) for precision in precisions]
        return list({loaded.spec.precision: loaded for loaded in reversed(found)}.values())[::-1]

    def of_open_clip(self, shown: Iterable[LoadedModel]) -> list[LoadedModel]:
        """Those that open_clip can run: the float types, and beside 8 bits at least fp32 and the fastest one."""
        floats: list[PrecisionChoice] = [
            loaded.spec.precision for loaded in shown if loaded.spec.precision not in _EIGHT_BITS
        ]
        has_8_bits = len(floats) < len(list(shown))
        return self.distinct([*(["fp32", "auto"] if has_8_bits else []), *floats])


def _noise(num: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def _tower(settings: BenchModelSettings, loaded: LoadedModel, policy: PruningPolicy | None, pixels: np.ndarray) -> _Row:
    if loaded.spec.precision == "int8":
        if settings.compile_tower:
            raise ConfigError("compile = True: torch cannot compile 8-bit products; leave out --compile, or int8")
        # noise says nothing about how close 8 bits are, so all blocks run in them
        loaded = calibrated(loaded, policy, [_noise(_NUM_NOISE, *pixels.shape[1:3])], min_cosine=0)
    tower = sharing_weights(loaded)
    encoder = Encoder(tower, policy)
    if settings.compile_tower:
        compile_tower(tower)
    return _Row(name_of(policy), loaded.spec.precision, encoder, tower_call(encoder, pixels))


def _timed(rows: list[_Row], settings: BenchModelSettings, batch_size: int) -> list[dict[str, Any]]:
    device = rows[0].encoder.device.type
    repeated = {
        place: lambda call=row.call: [call() for _ in range(settings.batches)] for place, row in enumerate(rows)
    }
    seconds = interleaved_seconds(repeated, settings.rounds, device)
    images = batch_size * settings.batches
    rates = {place: [images / value for value in values] for place, values in seconds.items()}
    medians = median_rates(rates)
    baseline = next(place for place, row in enumerate(rows) if row.name == UNPRUNED)
    open_clip = max((place for place, row in enumerate(rows) if row.name == OPEN_CLIP), key=medians.__getitem__)
    found = []
    for place, row in enumerate(rows):
        policy, gmacs = row.encoder.spec.policy, row.encoder.gmacs
        twin = _float_twin(rows, row, medians) if row.has_8_bits else None
        found.append(
            {
                "name": row.name,
                "precision": row.precision,
                "policy": policy.model_dump() if policy else None,
                "images_per_second": medians[place],
                "range": [min(rates[place]), max(rates[place])],
                "gmacs": gmacs,
                "measured": median_speedup(rates, place, baseline),
                "theoretical": rows[baseline].encoder.gmacs / gmacs,
                "over_float": None if twin is None else median_speedup(rates, place, twin),
                "over_open_clip": median_speedup(rates, place, open_clip),
                "peak_bytes": peak_bytes(row.call, device),
            }
        )
    return found


def _float_twin(rows: list[_Row], row: _Row, medians: dict[int, float]) -> int | None:
    """Place of the same policy in the fastest float type; None if it was not timed in any."""
    twins = [place for place, other in enumerate(rows) if other.name == row.name and not other.has_8_bits]
    return max(twins, key=medians.__getitem__, default=None)
