"""What the second pass computes from raw files; `results.json` is this tree. Fractions, not percent."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from query.evaluation.record import ConditionRecord, SweepRecord


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float
    method: Literal["bootstrap", "exact", "t", "none"] = "bootstrap"
    """How the interval was made: `exact` is conservative, where too few images differ; `t` over rounds of timings."""
    detectable: float | None = None
    """Of a difference: the smallest one that this sample would have shown in 80 % of repetitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgainstFloat:
    """A condition in 8 bits against the same one in a float type, on the same queries and images."""

    key: str
    """Of the one in a float type."""
    differences: dict[str, Estimate]
    """Metric by metric. `image_retrieval_recall@1+5+10` is the sum of recall over the ks."""
    fidelity: dict[str, float]
    """Agreement with it, without labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnData:
    """One condition on one data set."""

    data: str
    metrics: dict[str, Estimate]
    """By CLIP_benchmark's names, such as `image_retrieval_recall@5`; variants end in `(expected)`, `(epsilon)` and
    `(duplicates)`."""
    differences: dict[str, Estimate]
    """Metric by metric, against the baseline on the same queries; empty for the baseline."""
    fidelity: dict[str, float]
    """Agreement with the baseline, without labels: `overlap@10`, `rank_biased_overlap`, `cosine_p5`, ..."""
    against_float: AgainstFloat | None = None
    """None if it is not in 8 bits, or not measured in a float type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast the image tower of a condition is; `speedup` is against the baseline in the same rounds."""

    images_per_second: Estimate
    speedup: Estimate
    theoretical: float
    num_rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionResults:
    """Everything about one condition. `speed` is None where nothing was timed."""

    condition: ConditionRecord
    on: dict[str, OnData]
    """By data set."""
    speed: Speed | None = None
    query_ms: Estimate | None = None
    """Of an index condition: the time of one query on one thread."""
    speedup_over_float: Estimate | None = None
    """Of a condition in 8 bits: over the same one in a float type, in the same rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a decomposition: from the condition before it to this one."""

    name: str
    key: str
    total: Estimate
    """The metric itself after this step."""
    change: Estimate | None
    """What the step changed; None for the first. Changes add up to the whole, draw by draw."""
    from_first: Estimate | None
    after: str | None = None
    """Key of the step that it is a change from. Operating points of an index all follow exact search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """Where the recall of text queries goes: unpruned -> pruned -> pruned + adapter -> a point of an index."""

    data: str
    metric: str
    steps: list[Step]
    recovery: Estimate | None = None
    """Share of the loss of pruning that the adapter recovers, against the unpruned model; None without an adapter."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontResults:
    """The conditions that no other beats in both speed and recall, on one data set by one metric."""

    data: str
    metric: str
    keys: list[str]
    """Slowest first."""
    speed_at_loss: dict[str, Estimate | None]
    """Speed-up of the best front at a loss of at most so many points ("1.0"): interval from bootstrapped fronts."""
    recommended_for_loss: dict[str, str | None]
    """Key of the fastest condition whose loss is at most so many points; None if there is none."""
    recommended_for_speed: dict[str, str | None]
    """Key of the best condition of at least so many images per second."""
    surely_within_loss: dict[str, list[str]] = field(default_factory=dict)
    """Keys of all conditions whose whole interval is within the loss, fastest first; the others are so by the estimate
    alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedResults:
    """Whether one index over images of two conditions ranks fairly."""

    data: str
    first: str
    second: str
    """Keys of the two conditions."""
    share: Estimate
    """Share of the top k that images of `first` get."""
    expected: float
    """What they would get if all images were of the baseline."""
    k: int
    recall: dict[str, Estimate]
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """One bound on one number of one condition."""

    status: Literal["OK", "FAIL", "DRIFT"]
    """OK if the whole interval is inside the bound, FAIL if all of it is outside, DRIFT if it is on both sides."""
    condition: str
    """Its name."""
    key: str
    data: str
    """Name of the data set; empty for speeds."""
    metric: str
    kind: Literal["max_loss", "min", "max"]
    limit: float
    estimate: Estimate
    """The loss for `max_loss`, otherwise the number itself."""
    bound: str
    """The bound, for people."""
    found: str
    """The number and its interval, for people."""
    place: str
    """Where the bound is asked for: file, line and key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """The bounds of `require`, and how they fared."""

    rows: list[GateRow]
    notes: list[str]
    """What could not be checked, counted."""
    baseline: str | None
    """The earlier sweep that losses are against; None if they are against the unpruned model."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of rows of each status."""
        return {status: sum(row.status == status for row in self.rows) for status in ("OK", "FAIL", "DRIFT")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of a sweep."""

    record: SweepRecord
    conditions: list[ConditionResults]
    """The baseline first, in the order of the record."""
    fronts: list[FrontResults]
    decompositions: list[Decomposition] = field(default_factory=list)
    mixed: list[MixedResults] = field(default_factory=list)
    gates: Gates | None = None
    """None if they were not asked for."""

    def of(self, key: str) -> ConditionResults:
        """The results of a condition."""
        return next(found for found in self.conditions if found.condition.key == key)

    def as_json(self) -> dict[str, Any]:
        """The tree as plain values. A number that does not exist, such as an end of an interval, is None."""
        plain = asdict(self)
        plain["record"] = self.record.model_dump(mode="json")
        for found, condition in zip(plain["conditions"], self.conditions, strict=True):
            found["condition"] = condition.condition.model_dump(mode="json")
        return _without_nan(plain)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
