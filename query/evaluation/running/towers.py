"""The towers of a sweep: each model is loaded once, and weights that are equal are in memory once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from pipeline.errors import ClipsieveError, ConfigError, InputError
from pipeline.model.encode import Encoder, sharing_weights
from pipeline.model.load import LoadedModel, load_model
from pipeline.model.precision import Candidate, Kernels, Precision, PrecisionChoice
from pipeline.model.spec import ModelSource
from pipeline.monitor.progress import Tick
from query.evaluation.grid.expand import Condition
from query.evaluation.grid.read import Grid
from query.evaluation.record import ConditionRecord
from query.evaluation.running.work import OnTick

_MAX_SHARE_OF_MEMORY = 0.5


@dataclass(frozen=True, slots=True)
class Tower:
    """A condition and its encoder. All towers of a model share its weights."""

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
            key=condition.key,
            name=condition.name,
            series=condition.series,
            role=condition.role,
            model=condition.source.model,
            pretrained=condition.source.pretrained,
            policy=condition.policy.model_dump(mode="json") if condition.policy else None,
            adapter=condition.source.adapter,
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
    _loaded: dict[tuple[ModelSource, Precision], LoadedModel] = field(default_factory=dict)
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
        self._loaded[source, loaded.spec.precision] = loaded
        return loaded

    def warnings(self) -> list[str]:
        """A warning if the weights of all models fill much of the memory, which disturbs timings."""
        tensors = [tensor for same in self._by_name.values() for tensor in same]
        used = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        if self.device.type == "cuda":
            room = torch.cuda.mem_get_info(self.device)[1]
        else:
            room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if used <= _MAX_SHARE_OF_MEMORY * room:
            return []
        return [
            f"the {len(self._loaded)} models of this sweep take {used / 2**30:.1f} of {room / 2**30:.1f} GiB of memory "
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
    conditions: Sequence[Condition], grid: Grid, models: Models, on_tick: OnTick
) -> tuple[list[Tower], list[str]]:
    """Load every model and attach every policy: from then on, all fingerprints are known.

    Returns:
        The towers in the order of their conditions; and a note for each rival that does not fit the model, which is
        left out.

    Raises:
        ConfigError: If a policy does not fit its tower. The message names the line of the grid.
        InputError: If a model or an adapter cannot be loaded.
    """
    towers, notes = [], []
    for number, condition in enumerate(conditions):
        try:
            loaded = models.load(condition.source, condition.precision)
            towers.append(Tower(condition, loaded, Encoder(sharing_weights(loaded), condition.policy)))
        except (ConfigError, InputError) as error:
            if condition.role == "rival":
                notes.append(f"rival {condition.name!r} does not fit this model and is left out: {error}")
                continue
            raise _located(error, condition, grid) from error
        on_tick("models", Tick(number + 1, len(conditions), 0, 0.0, is_of_images=False))
    return towers, notes


def distinct(towers: Sequence[Tower], grid: Grid) -> tuple[list[Tower], list[str]]:
    """The towers without those that are the same as another, and a note for each that is left out.

    Raises:
        ConfigError: If two conditions that the user asked for are the same encoder.
    """
    firsts: dict[str, Tower] = {}
    notes = []
    for tower in sorted(towers, key=lambda tower: tower.condition.role == "rival"):
        first = firsts.setdefault(tower.fingerprint, tower)
        if first is tower:
            continue
        own, other = tower.condition, first.condition
        if own.role == "rival" or other.role == "baseline":
            notes.append(f"{own.name!r} ({own.series}) is the same encoder as {other.name!r} and is measured once")
            continue
        raise ConfigError(
            f"{grid.path}, line {grid.line_of(own.loc)}: condition {own.name!r} is the same encoder as {other.name!r} "
            f"of line {grid.line_of(other.loc)} (fingerprint {tower.fingerprint}); remove one of them"
        )
    kept = {id(tower) for tower in firsts.values()}
    return [tower for tower in towers if id(tower) in kept], notes


def _located(error: ClipsieveError, condition: Condition, grid: Grid) -> ClipsieveError:
    return type(error)(f"{grid.path}, line {grid.line_of(condition.loc)}: condition {condition.name!r}: {error}")
