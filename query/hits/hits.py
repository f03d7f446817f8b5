"""Hits: the answers to one request, as a sequence and as a table."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, overload

import pyarrow as pa

from pipeline.errors import ConfigError
from query.queries.request import Request

if TYPE_CHECKING:
    import pandas as pd


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


class Asked(Protocol):
    """Who answers requests: a `query.searcher.Searcher`."""

    def ask(self, request: Request) -> "Hits":
        """Answer a request."""
        ...


OWN = tuple(one.name for one in fields(Hit) if one.name != "columns")
"""Columns that every table of hits has."""


@dataclass(frozen=True)
class Hits(Sequence[Hit]):
    """The answers to one request, best first."""

    request: Request
    table: pa.Table
    """A row per hit: `OWN`, then the other columns of the store. One whose name is taken gets a `store_` before it."""
    timings: Timings
    asked: Asked
    """Answers what follows from these hits."""
    warnings: tuple[str, ...] = ()
    """What a user should know about the query and the index."""

    @cached_property
    def _hits(self) -> list[Hit]:
        rows = self.table.to_pylist()
        return [Hit(**{name: row.pop(name) for name in OWN}, columns=row) for row in rows]

    def __len__(self) -> int:
        return self.table.num_rows

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        """A hit, or some of them, by place (from 0)."""
        return self._hits[index]

    def where(self, condition: str) -> "Hits":
        """Ask again, only among the images for which this condition holds as well.

        Raises:
            ConfigError: If the condition cannot be read.
        """
        options = self.request.options
        return self.asked.ask(replace(self.request, options=replace(options, where=(*options.where, condition))))

    def like(self, *hits: Hit | int | str) -> "Hits":
        """Ask for images like some of these (hits, ids or keys), among the same images.

        Raises:
            InputError: If one is not in the store, or was deleted.
        """
        like = tuple(hit.id if isinstance(hit, Hit) else hit for hit in hits)
        return self.asked.ask(replace(self.request, text=None, images=(), vector=None, like=like))

    def to_arrow(self) -> pa.Table:
        """The hits as an Arrow table."""
        return self.table

    def to_pandas(self) -> "pd.DataFrame":
        """The hits as a pandas data frame.

        Raises:
            ConfigError: If pandas is not installed.
        """
        try:
            return self.table.to_pandas()
        except ImportError as error:
            raise ConfigError("pandas is not installed; run `pip install pandas`, or use to_arrow()") from error

    def to_dict(self) -> dict[str, Any]:
        """The query, its hits, timings (ms) and warnings as plain values, for JSON."""
        return {
            "query": self.request.title,
            "hits": self.table.to_pylist(),
            "timings_ms": {name: round(value, 3) for name, value in asdict(self.timings).items()},
            "warnings": list(self.warnings),
        }

    def _repr_html_(self) -> str:
        """Thumbnails, for notebooks."""
        from query.hits.html import gallery

        return gallery(self)
