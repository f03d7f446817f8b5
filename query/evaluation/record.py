"""`sweep.json`: what a sweep compares, where it ran, and on which data. The raw files belong to it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipeline.model.precision import EIGHT_BITS
from query.queries.options import DUPLICATE_COSINE

WITH_DISTRACTORS = "+distractors"
"""End of the name of a data set whose gallery has its distractors, too."""
OF_ONE_RUN = frozenset({"command", "date"})
"""What of an environment says nothing about measurements."""
SCHEMA_VERSION = 1
"""Of `sweep.json` and the raw files together. A change of either needs a new number."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_OF_A_TOWER = frozenset({"model", "pretrained", "adapter", "adapter_sha256", "image_size", "index"})


class IndexRecord(_Record):
    """An index over the gallery, searched at one operating point."""

    recipe: str
    effort: int
    """nprobe or efSearch; 0 where there is no such choice."""
    candidates: int
    num_bytes: int


class ConditionRecord(_Record):
    """One way to embed and search, and what identifies it."""

    key: str
    """Names its raw files: plain ASCII, unique in the sweep. The same settings give the same key."""
    name: str
    """As tables show it; unique in the sweep."""
    series: str
    role: Literal["baseline", "condition", "rival", "index"]
    """An index condition searches the vectors of its `parent`."""
    parent: str | None = None
    """Key of the condition whose vectors it searches; None for the others."""
    model: str
    pretrained: str | None = None
    policy: dict[str, Any] | None = None
    adapter: str | None = None
    """As the grid names it."""
    adapter_sha256: str | None = None
    image_size: int
    precision: str
    fingerprint: str
    """Of the encoder: text space and image space."""
    gmacs: float
    """Cost of the image tower, in 1e9 multiply-adds per image."""
    tokens_kept: int
    index: IndexRecord | None = None

    @property
    def has_8_bits(self) -> bool:
        """Whether it computes in 8 bits."""
        return self.precision in EIGHT_BITS

    def differs_in_precision_from(self, other: "ConditionRecord") -> bool:
        """Whether nothing but the precision differs; names do not count."""
        mine, others = ({**one.model_dump(include=_OF_A_TOWER), "policy": _unnamed(one)} for one in (self, other))
        return mine == others and self.precision != other.precision

    def shares_space_with(self, other: "ConditionRecord") -> bool:
        """Whether cosines between image vectors of both mean something: another model has a space of its own."""
        return (self.model, self.pretrained) == (other.model, other.pretrained)


def _unnamed(condition: ConditionRecord) -> dict[str, Any] | None:
    return None if condition.policy is None else {**condition.policy, "name": None}


class DataRecord(_Record):
    """One data set as it was used."""

    name: str
    kind: Literal["captions", "classes"]
    location: str
    sha256: str
    """Of the split: keys, queries and which answers which; see `data.data_set`."""
    counts: dict[str, int]
    """num_images, num_own, num_distractors, num_queries, num_left_out (queries beyond the first five), num_failed."""
    images_sha256: str = ""
    """Hash of the bytes of its images, in their order."""
    images_per_second_of: str | None = None
    """The data set whose images the towers were timed on."""


class SweepRecord(_Record):
    """What `sweep.json` holds."""

    schema_version: int = SCHEMA_VERSION
    clipsieve_version: str
    grid: dict[str, Any]
    """The whole grid with its defaults, as JSON."""
    grid_sha256: str
    commands: list[str]
    """Every command that worked on this folder, oldest first."""
    environment: dict[str, Any]
    """As `measure.provenance`, with device, batch size and the versions of faiss and numpy."""
    environment_key: str
    """Hash of what a timing or an embedding depends on besides its condition: hardware and versions, no dates."""
    duplicate_cosine: float = DUPLICATE_COSINE
    """From which cosine on, under the baseline, two images count as the same in the metrics with `(duplicates)`."""
    data: list[DataRecord]
    conditions: list[ConditionRecord]
    """The baseline first."""
    warnings: list[str] = []

    @property
    def baseline(self) -> ConditionRecord:
        """The unpruned model."""
        return self.conditions[0]

    def condition(self, key: str) -> ConditionRecord:
        """The condition with a key."""
        return next(condition for condition in self.conditions if condition.key == key)

    def in_float(self, condition: ConditionRecord) -> ConditionRecord | None:
        """The same condition in a float type, for one in 8 bits: in that of the baseline, if there are several.

        Returns:
            None if the condition is none in 8 bits, is searched through an index, or is not measured in a float type.
        """
        if not condition.has_8_bits or condition.role == "index":
            return None
        found = [one for one in self.conditions if not one.has_8_bits and one.differs_in_precision_from(condition)]
        return next((one for one in found if one.precision == self.baseline.precision), next(iter(found), None))


def changes_of(earlier: dict[str, Any], environment: dict[str, Any]) -> str:
    """What is not as it was, for people: `torch 2.8.0 -> 2.9.0, cores 2 -> 4`."""
    names = [name for name in environment if name not in OF_ONE_RUN and environment[name] != earlier.get(name)]
    return ", ".join(f"{name} {earlier.get(name, 'unknown')} -> {environment[name]}" for name in names)
