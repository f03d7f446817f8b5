"""The towers of a sweep: each model is loaded once, and weights that are equal are in memory once."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pipeline.errors import ClipsieveError, ConfigError, InputError
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import LoadedModel, load_model
from pipeline.model.precision import Candidate, Kernels, PrecisionChoice
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.spec import ModelSource
from pipeline.model.towers.families import unprunable_reason
from pipeline.monitor.progress import Tick
from query.evaluation.grid.condition import Condition
from query.evaluation.grid.expand import without_pruned_rivals, without_repeats
from query.evaluation.grid.read import Grid
from query.evaluation.record import ConditionRecord
from query.evaluation.running.kept.work import OnTick

_MAX_SHARE_OF_MEMORY = 0.5


@dataclass(frozen=True, slots=True)
class Tower:
    """A condition and its encoder. All towers of a model share its weights."""

    key: str
    """Of the condition, which takes long to compute it."""
    condition: Condition
    loaded: LoadedModel
    encoder: Encoder

    @property
    def fingerprint(self) -> str:
        """Of the encoder."""
        return self.encoder.spec.fingerprint

    def record(self) -> ConditionRecord:
        """As `sweep.json` holds it."""
        condition, spec = self.condition, self.encoder.spec
        return ConditionRecord(
            key=self.key,
            name=condition.name,
            series=condition.series,
            role=condition.role,
            model=condition.spelled.model,
            pretrained=condition.spelled.pretrained,
            policy=condition.policy.model_dump(mode="json") if condition.policy else None,
            adapter=condition.adapter,
            adapter_sha256=spec.adapter,
            image_size=spec.preprocess.height,
            precision=spec.precision,
            fingerprint=spec.fingerprint,
            gmacs=self.encoder.gmacs,
            tokens_kept=self.encoder.tokens_kept,
        )


@dataclass(slots=True)
class Models:
    """Loads models. What is measured of the first one, precision and kernels, holds for all: they are compared."""

    device: torch.device
    batch_size: int
    auto: Candidate | None = None
    """What `auto` stands for; measured on the first model that asks, if None."""
    bf16_kernels: Kernels | None = None
    _loaded: dict[tuple[ModelSource, PrecisionChoice], LoadedModel] = field(default_factory=dict)
    _by_name: dict[tuple[str, torch.Size, torch.dtype], list[torch.Tensor]] = field(default_factory=dict)

    def load(self, source: ModelSource, asked: PrecisionChoice) -> LoadedModel:
        """The model of a source, loaded on first use."""
        precision = self.auto.precision if asked == "auto" and self.auto else asked
        if (source, precision) in self._loaded:
            return self._loaded[source, precision]
        kernels = self.bf16_kernels if precision == "bf16" else None
        loaded = load_model(source, precision, self.device, self.batch_size, kernels)
        if asked == "auto" and self.auto is None:
            self.auto = Candidate(precision=loaded.spec.precision, kernels=loaded.kernels)
        if loaded.spec.precision == "bf16":
            self.bf16_kernels = loaded.kernels
        self._share_equal_weights(loaded.clip)
        for name in (loaded.spec.precision, precision):  # 8bit stands for one of them
            loaded = self._loaded.setdefault((source, name), loaded)
        return loaded

    def choices(self) -> dict[str, Any]:
        """What was chosen by measuring, as `sweep.json` keeps it for the next run."""
        auto = self.auto.model_dump(mode="json") if self.auto else None
        return {"auto": auto, "bf16_kernels": self.bf16_kernels}

    def warnings(self) -> list[str]:
        """A warning if the weights of all models fill much of the memory, which disturbs timings."""
        num_models = len({id(loaded) for loaded in self._loaded.values()})
        tensors = [tensor for same in self._by_name.values() for tensor in same]
        used = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        if self.device.type == "cuda":
            room = torch.cuda.mem_get_info(self.device)[1]
        else:
            room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if used <= _MAX_SHARE_OF_MEMORY * room:
            return []
        return [
            f"the {num_models} models of this sweep take {used / 2**30:.1f} of {room / 2**30:.1f} GiB of memory "
            "together, which may disturb timings; sweep fewer models, adapters or image sizes at once"
        ]

    def _share_equal_weights(self, clip: nn.Module) -> None:
        # image sizes differ in the positions, and adapters in the matrices that they update
        for name, tensor in clip.named_parameters():
            same = self._by_name.setdefault((name, tensor.shape, tensor.dtype), [])
            equal = next((other for other in same if torch.equal(other, tensor)), None)
            if equal is None:
                same.append(tensor.data)
            else:
                tensor.data = equal


def load_towers(
    conditions: Sequence[Condition],
    grid: Grid,
    models: Models,
    on_tick: OnTick,
    calibrated: Callable[[LoadedModel, PruningPolicy | None], LoadedModel] = lambda loaded, policy: loaded,
) -> tuple[list[Tower], list[str]]:
    """Load every model and attach every policy: from then on, all fingerprints are known.

    Rivals that do not fit the model are left out, and so is what turns out to be the encoder of another condition.

    Args:
        conditions: The conditions, the baseline first.
        grid: The grid, for messages.
        models: Loads the models.
        on_tick: Called with the progress.
        calibrated: Gives a model in int8 its calibration for a policy; see `Calibrations.calibrated`.

    Returns:
        The towers in the order of their conditions, and a warning for each condition that is left out.

    Raises:
        ConfigError: If a policy does not fit its tower, or two conditions of series are the same encoder. The message
            names the lines of the grid.
        InputError: If a model or an adapter cannot be loaded, or a calibration is not of its model.
    """
    try:
        baseline = models.load(conditions[0].source, conditions[0].precision)
    except (ConfigError, InputError) as error:
        raise type(error)(f"{grid.path}, line {grid.line_of(conditions[0].loc)}: {error}") from error
    warnings = []
    if unprunable_reason(baseline.clip.visual):
        conditions, warnings = without_pruned_rivals(list(conditions))
    found: list[Tower] = []
    for number, condition in enumerate(conditions):
        try:
            loaded = calibrated(models.load(condition.source, condition.precision), condition.policy)
            encoder = Encoder(sharing_weights(loaded), condition.policy)
            found.append(Tower(condition.key, condition, loaded, encoder))
        except (ConfigError, InputError) as error:
            if condition.loc[:1] != ("rivals",):
                raise _located(error, condition, grid) from error
            warnings.append(f"{condition.name!r} does not fit this model and is left out: {error}")
        on_tick("models", Tick(number + 1, len(conditions), 0, 0.0, is_of_images=False))
    fingerprints = {tower.key: tower.fingerprint for tower in found}
    distinct, repeats = without_repeats(grid, [tower.condition for tower in found], fingerprints)
    kept = {id(condition) for condition in distinct}
    return [tower for tower in found if id(tower.condition) in kept], [*warnings, *repeats]


def _located(error: ClipsieveError, condition: Condition, grid: Grid) -> ClipsieveError:
    return type(error)(f"{grid.path}, line {grid.line_of(condition.loc)}: condition {condition.name!r}: {error}")
