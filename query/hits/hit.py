"""One hit, and what a search took."""

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One answer."""

    rank: int
    """From 1."""
    id: int
    key: str
    uri: str
    score: float
    """Inner product of unit vectors; larger is better."""
    relevance: float | None = None
    """Where the score stands for this query; see `query.hits.relevance`. None if it cannot be told."""
    caption: str | None = None
    duplicates: int = 0
    """How many near-duplicates it stands for, if they are left out."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Width, height and the carried columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds that the stages of a search took. Requests that are searched together share them."""

    embed: float = 0.0
    """Query to vector; the first one loads the tower."""
    filter: float = 0.0
    """Which rows may be found."""
    index: float = 0.0
    """Candidates, exact scores, relevance and near-duplicates."""
    hits: float = 0.0
    """Reading the metadata."""

    @property
    def total(self) -> float:
        """All stages."""
        return self.embed + self.filter + self.index + self.hits

    @property
    def stages(self) -> str:
        """Each stage and its time, for people."""
        return ", ".join(f"{one.name} {getattr(self, one.name):.1f}" for one in fields(self))
