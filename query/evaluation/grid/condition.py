"""A condition: one way to embed images, as the grid asks for it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.model.precision import PrecisionChoice
from pipeline.model.pruning.names import UNPRUNED
from pipeline.model.pruning.policy import PruningPolicy, Stages, named_policy, policy_names
from pipeline.model.spec import ModelSource
from pipeline.yaml_file import Loc


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One way to embed images. Settings that are equal give equal results; names are for people."""

    name: str
    """Short and unique in the sweep: `balanced`, `fast+adapter`, `160 px`, `random, keep 0.5`."""
    series: str
    role: Literal["baseline", "condition", "rival"]
    source: ModelSource
    """With absolute paths."""
    spelled: ModelSource
    """As the grid spells it, with `$NAME`: the same on every machine."""
    policy: PruningPolicy | None
    precision: PrecisionChoice
    loc: Loc = ()
    """Which key of the grid asks for it."""

    @property
    def settings(self) -> tuple[ModelSource, dict[str, Any] | None, PrecisionChoice]:
        """Everything but names."""
        policy = self.policy.model_dump(exclude={"name"}) if self.policy else None
        return self.source, policy, self.precision

    @property
    def adapter(self) -> str | None:
        """The adapter as the grid names it."""
        return self.spelled.adapter

    @property
    def key(self) -> str:
        """Names its files: what it is, in plain ASCII, and a hash of its settings. Names do not count."""
        # without defaults, so that a new setting does not change the keys of old ones
        policy = self.policy.model_dump(mode="json", exclude={"name"}, exclude_defaults=True) if self.policy else None
        source = self.spelled.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        text = json.dumps([source, policy, self.precision], sort_keys=True)
        parts = [_slug_of(self.policy)]
        parts += [f"{self.source.image_size}px"] if self.source.image_size else []
        parts += ["adapter"] if self.source.adapter else []
        parts += [self.precision] if self.precision != "auto" else []
        return f"{'-'.join(parts)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _slug_of(policy: PruningPolicy | None) -> str:
    """What a policy is, whatever it is called."""
    if policy is None:
        return UNPRUNED
    ratio = f"-{policy.gmac_ratio:g}x" if policy.gmac_ratio else ""
    for name in policy_names()[1:]:
        shipped = named_policy(name)
        if policy.model_copy(update={"name": name}) == shipped:
            return name
        if policy.model_copy(update={"name": name, "gmac_ratio": None}) == shipped:
            return f"{name}{ratio}"
    text = policy.reduce if policy.reduce == "bipartite" else f"{policy.score}-{policy.reduce}"
    if isinstance(policy.schedule, Stages):
        text += "".join(f"-{cut.keep:g}" for cut in policy.schedule.cuts)
    return f"{text}{ratio}" + (f"-seed{policy.seed}" if policy.seed else "")
