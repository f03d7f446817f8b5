"""Pruning policies as data: how tokens are scored, where they are cut, what happens to the rest. No tensors here.

Depths are fractions of a tower's depth and token counts are fractions of its N patch tokens, so one policy fits every
tower. The named policies are YAML files in `policies/`; each starts with the command that measured it and its result.
"""

from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import ConfigError
from pipeline.model.pruning.names import UNPRUNED, plain_name, refuse_reserved
from pipeline.yaml_file import kind_of, read_yaml

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

DEFAULT_POLICY = "balanced"
_SHIPPED = resources.files("pipeline.model.pruning") / "policies"

Depth = Annotated[float, Field(ge=0.0, lt=1.0)]
Ratio = Annotated[float, Field(gt=0.0, le=1.0)]
Score = Literal[
    "l2",
    "l2_robust",
    "l2_cls",
    "cls_attn",
    "cls_attn_v",
    "key_norm",
    "redundancy",
    "energy",
    "hybrid",
    "clip_sem",
    "random",
    "grid",
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CutPoint(_Part):
    """Before block int(depth * blocks), keep int(keep * N) of the tower's N patch tokens."""

    depth: Depth
    keep: Ratio


class Stages(_Part):
    """Cuts at one or more depths; each keep ratio refers to all N tokens."""

    kind: Literal["stages"] = "stages"
    cuts: tuple[CutPoint, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_order(self) -> "Stages":
        for above, below in pairwise(self.cuts):
            if below.depth <= above.depth or below.keep > above.keep:
                raise ValueError(
                    f"each cut must be deeper than the last and keep no more; found {above} before {below}"
                )
        return self

    def patches(self, num_patches: int, num_blocks: int, power: float) -> list[int]:
        """Patch tokens in each block, with keep ratios raised to `power`."""
        counts = [num_patches] * num_blocks
        for cut in self.cuts:
            first = int(cut.depth * num_blocks)
            counts[first:] = [_share(cut.keep**power, num_patches)] * (num_blocks - first)
        return counts


class Geometric(_Part):
    """Before every block from `start` on, keep the same share of the remaining tokens, down to a floor."""

    kind: Literal["geometric"] = "geometric"
    start: Depth = 0.0
    ratio: Ratio
    floor: Ratio = 0.15

    def patches(self, num_patches: int, num_blocks: int, power: float) -> list[int]:
        """Patch tokens in each block, with the ratio raised to `power`."""
        counts, left, floor = [], num_patches, _share(self.floor, num_patches)
        for block in range(num_blocks):
            if block >= int(self.start * num_blocks):
                left = max(min(left, floor), _share(self.ratio**power, left))
            counts.append(left)
        return counts


class Constant(_Part):
    """Before every block from `start` on, remove int(removed * N) tokens."""

    kind: Literal["constant"] = "constant"
    start: Depth = 0.0
    removed: Annotated[float, Field(gt=0.0, lt=1.0)]

    def patches(self, num_patches: int, num_blocks: int, power: float) -> list[int]:
        """Patch tokens in each block, with the removed share multiplied by `power`."""
        step, first = _share(self.removed * power, num_patches), int(self.start * num_blocks)
        return [num_patches - step * max(0, block - first + 1) for block in range(num_blocks)]


class Bypass(_Part):
    """Every block from `start` on processes its best int(keep * N) tokens; the others bypass it and may come back."""

    kind: Literal["bypass"] = "bypass"
    start: Depth = 0.0
    keep: Ratio

    def patches(self, num_patches: int, num_blocks: int, power: float) -> list[int]:
        """Patch tokens in each block, with the keep ratio raised to `power`."""
        first = int(self.start * num_blocks)
        return [num_patches] * first + [_share(self.keep**power, num_patches)] * (num_blocks - first)


Schedule = Annotated[Stages | Geometric | Constant | Bypass, Field(discriminator="kind")]


class PruningPolicy(_Part):
    """How an image tower is made cheaper."""

    name: str
    """Name shown in tables and written to the store; not part of the fingerprint."""

    schedule: Schedule | None = None
    """Where and how much to cut; None cuts nothing."""

    score: Score = "l2"
    """Importance score of a patch token as it enters the block; see `pipeline.model.pruning.scores`."""

    reduce: Literal["drop", "summary", "merge", "bipartite"] = "summary"
    """What to do with the other tokens: drop; one summary token; merge into the nearest kept token; merge in pairs."""

    summary: Literal["mean_all", "mean_dropped", "score_mean"] = "mean_all"
    """The summary at the first cut: the mean of all tokens, of dropped tokens, or of dropped tokens by score."""

    size_weight: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """A token that represents s tokens counts s**size_weight times in attention; 0 ignores sizes, 1 is exact."""

    class_token_last: bool = True
    """Compute only the class token in the last block, if nothing else is read after it; lossless."""

    gmac_ratio: Annotated[float, Field(gt=1.0)] | None = None
    """Target factor of multiply-adds saved over unpruned; all keep ratios are raised to the power that reaches it."""

    seed: Annotated[int, Field(ge=0, exclude_if=lambda seed: seed == 0)] = 0
    """Seed of the score `random`. 0 is not written: fingerprints from before there were seeds stay valid."""

    @model_validator(mode="after")
    def _check_parts(self) -> "PruningPolicy":
        if self.size_weight and self.reduce == "drop":
            raise ValueError(f"size_weight = {self.size_weight}: dropped tokens have no size; choose another reduce")
        if isinstance(self.schedule, Bypass) and self.reduce != "drop":
            raise ValueError(f"reduce = {self.reduce!r}: a bypass does not reduce tokens; expected 'drop'")
        if self.gmac_ratio and self.schedule is None:
            raise ValueError(f"gmac_ratio = {self.gmac_ratio:g}: there is no schedule to sharpen; add a schedule")
        if self.seed and self.score != "random":
            raise ValueError(f"seed = {self.seed}: score {self.score!r} draws nothing; only 'random' takes a seed")
        return self

    def patches_per_block(self, num_patches: int, num_blocks: int, power: float = 1.0) -> list[int]:
        """Number of patch tokens in each block of a tower, with keep ratios raised to `power`.

        Raises:
            ConfigError: If a block would have no patch tokens left, or merging in pairs cannot remove as many.
        """
        if self.schedule is None:
            return [num_patches] * num_blocks
        counts = self.schedule.patches(num_patches, num_blocks, power)
        if self.reduce == "bipartite":
            counts = self._at_most_pairs(num_patches, counts)
        if min(counts) < 1:
            block = next(block for block, count in enumerate(counts) if count < 1)
            raise ConfigError(
                f"policy {self.name!r} keeps {counts[block]} of {num_patches} patch tokens at block {block} of "
                f"{num_blocks}; expected at least 1 in every block; raise its keep ratios"
            )
        return counts

    def _at_most_pairs(self, num_patches: int, counts: list[int]) -> list[int]:
        """Limit counts to what merging in pairs can do: it removes at most half; `Constant` then removes fewer."""
        possible, before = [], num_patches
        for block, count in enumerate(counts):
            least = before - before // 2
            if count < least and not isinstance(self.schedule, Constant):
                raise ConfigError(
                    f"policy {self.name!r} keeps {count} of {before} patch tokens at block {block}: merging in pairs "
                    f"leaves at least {least}; cut less per block, or choose another reduce"
                )
            before = max(count, least)
            possible.append(before)
        return possible


def choose_policy(name: str | None, keep_ratio: float | None, gmac_ratio: float | None = None) -> PruningPolicy | None:
    """Turn `--policy`, `--keep-ratio` and `--gmac-ratio` into a policy; None means the unpruned tower.

    Raises:
        ConfigError: If there is no such policy, or a ratio does not apply to it.
    """
    if keep_ratio is None:
        policy = named_policy(name or DEFAULT_POLICY)
        return policy if gmac_ratio is None else sharpened(policy, gmac_ratio)
    if name not in (None, "reference"):
        raise ConfigError(f"keep_ratio = {keep_ratio:g} only applies to the reference policy; drop policy {name!r}")
    if gmac_ratio is not None:
        raise ConfigError(f"keep_ratio = {keep_ratio:g} and gmac_ratio = {gmac_ratio:g} conflict; give only one")
    return _reference_policy(keep_ratio)


def policy_names() -> list[str]:
    """Names of the built-in policies, `none` first."""
    files = _SHIPPED.iterdir()
    return [UNPRUNED, *sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))]


def named_policy(name: str) -> PruningPolicy | None:
    """The policy for `--policy NAME|FILE.yaml`; None for the unpruned tower.

    Raises:
        ConfigError: If there is no policy of that name, or the file is not a policy.
    """
    if name == UNPRUNED:
        return None
    if name.lower().endswith((".yaml", ".yml")):
        policy = _read_policy(Path(name).expanduser(), Path(name).stem)
        refuse_taken_name(policy, f"policy {name}")
        return policy
    if name not in policy_names():
        raise ConfigError(f"policy = {name!r}: expected one of {', '.join(policy_names())}, or a FILE.yaml")
    return _read_policy(_SHIPPED / f"{name}.yaml", name)


def refuse_taken_name(policy: PruningPolicy, where: str) -> None:
    """Refuse a policy from a file if its name would be mistaken for another one in a table.

    Raises:
        ConfigError: If the name belongs to a baseline, or to a built-in policy with other fields.
    """
    refuse_reserved(policy.name, where)
    name = plain_name(policy.name)
    if name in policy_names() and policy.model_copy(update={"name": name}) != named_policy(name):
        raise ConfigError(
            f"{where}: name = {policy.name!r} is the name of a built-in policy, which differs; add another `name`"
        )


def _reference_policy(keep_ratio: float) -> PruningPolicy:
    reference = named_policy("reference")
    cuts = tuple(cut.model_copy(update={"keep": keep_ratio}) for cut in reference.schedule.cuts)
    name = reference.name if cuts == reference.schedule.cuts else f"{reference.name}({keep_ratio:g})"
    return reference.model_copy(update={"name": name, "schedule": Stages(cuts=cuts)})


def name_of(policy: PruningPolicy | None) -> str:
    """The name of a policy, or of no pruning."""
    return policy.name if policy else UNPRUNED


def sharpened(policy: PruningPolicy | None, gmac_ratio: float) -> PruningPolicy:
    """The same policy with a target cost, which its name includes.

    Raises:
        ConfigError: If the policy has no schedule.
    """
    if policy is None or policy.schedule is None:
        raise ConfigError(
            f"gmac_ratio = {gmac_ratio:g}: policy {name_of(policy)!r} has no schedule to sharpen; give another policy"
        )
    return policy.model_copy(update={"name": f"{policy.name}({gmac_ratio:g}x)", "gmac_ratio": gmac_ratio})


def _read_policy(path: "Path | Traversable", name: str) -> PruningPolicy:
    values = read_yaml(path, "policy", f"one of {', '.join(policy_names())}, or a YAML file of a policy")
    if not isinstance(values, dict):
        raise ConfigError(
            f"policy {path} must hold `key: value` lines, found {kind_of(values)}; give at least a `schedule`"
        )
    try:
        return PruningPolicy(**{"name": name, **{str(key): value for key, value in values.items()}})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"policy {path}: {field} = {first['input']!r}: {first['msg']}") from error


def _share(ratio: float, count: int) -> int:
    # products such as 0.29 * 100 are 28.999... in floats
    return int(ratio * count + 1e-9)
