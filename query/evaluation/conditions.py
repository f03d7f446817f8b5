"""The conditions that `evaluate` compares, and the `embed` settings of each."""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.model.precision import PrecisionChoice
from pipeline.model.pruning.names import ADAPTED, CONTROL, UNPRUNED
from pipeline.model.pruning.policy import PruningPolicy
from pipeline.settings.embed import EmbedSettings
from pipeline.settings.load import OutputSettings
from query.settings import EvaluateSettings

RESULTS = "results"
"""The folder of raw files, beside those of the stores."""
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.()+-]{0,99}")


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to embed the images: its name in the results, its `--policy` value, the policy, adapter and precision."""

    name: str
    asked: str | None
    policy: PruningPolicy | None
    adapter: str | None = None
    precision: PrecisionChoice = "auto"

    @property
    def folder(self) -> str:
        """Name of its store's folder: its own name if it is plain and not taken, otherwise with a hash."""
        if _PLAIN.fullmatch(self.name) and self.name.lower() != RESULTS:
            return self.name
        plain = re.sub(r"[^A-Za-z0-9_()+-]+", "_", self.name)[:60]
        return f"{plain}-{hashlib.sha256(self.name.encode()).hexdigest()[:12]}"

    @property
    def is_repaired(self) -> bool:
        """Whether the images are pruned, and an adapter makes up for it."""
        return self.policy is not None and self.adapter is not None


def conditions_of(settings: EvaluateSettings) -> list[Condition]:
    """The unpruned model, then each policy, each followed by its adapted version if an adapter is given.

    Then the same in the other precisions, whose names end in `+int8` and the like. The control is only in the first.
    """
    first, *others = settings.precisions()
    unpruned, *more = _without_precision(settings)
    if settings.control:
        more.insert(0, Condition(CONTROL, UNPRUNED, None, settings.control))
    conditions = [replace(condition, precision=first) for condition in (unpruned, *more)]
    for precision in others:
        for condition in _without_precision(settings):
            conditions.append(replace(condition, name=f"{condition.name}+{precision}", precision=precision))
    return conditions


def _without_precision(settings: EvaluateSettings) -> list[Condition]:
    conditions = [Condition(UNPRUNED, UNPRUNED, None)]
    if settings.adapter and settings.asks_unpruned:
        conditions.append(Condition(f"{UNPRUNED}{ADAPTED}", UNPRUNED, None, settings.adapter))
    for asked, policy in settings.pruning_policies().items():
        conditions.append(Condition(policy.name, asked, policy))
        if settings.adapter:
            conditions.append(Condition(f"{policy.name}{ADAPTED}", asked, policy, settings.adapter))
    return conditions


def embed_settings(settings: EvaluateSettings, condition: Condition, out: Path) -> EmbedSettings:
    """The `embed` settings of a condition. Its store is in `out`, in the condition's own folder.

    Images that changed since an earlier run into `out` are embedded again: what is measured is what is there now.
    """
    own = {"out", "captions", "policy", "source", "input_format", "on_change"}
    fields = set(EmbedSettings.model_fields) - own - set(OutputSettings.model_fields)
    shared = settings.model_dump(include=fields)
    shared |= {"policy": condition.asked, "adapter": condition.adapter, "precision": condition.precision}
    if condition.policy is None:
        shared |= {"keep_ratio": None, "gmac_ratio": None}
    return EmbedSettings(
        **shared,
        source=str(settings.images),
        out=out / condition.folder,
        captions=settings.captions,
        input_format="folder",
        on_change="embed",
    )
