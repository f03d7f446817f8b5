"""Hits: the answers to one request, as a sequence and as a table."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, overload

import pyarrow as pa

from pipeline.errors import ConfigError, on_one_line
from query.hits.hit import Hit, Timings
from query.hits.notes import notes_of, num_strong
from query.hits.values import json_row, rows_of
from query.queries.request import Request

if TYPE_CHECKING:
    import pandas as pd


class Asked(Protocol):
    """Who answers requests: a `query.searcher.Searcher`."""

    def ask(self, request: Request) -> "Hits":
        """Answer a request."""
        ...

    def has_keys(self, keys: Sequence[str]) -> "list[bool | None]":
        """Whether the store has an image with each of these keys; None if it cannot tell."""
        ...


_IN_REPR = 5
_LINE = 160

OWN = tuple(one.name for one in fields(Hit) if one.name != "columns")
"""Columns that every table of hits has."""


@dataclass(frozen=True, repr=False)
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
    version: str = ""
    """Which state of the store and its index answered."""
    num_images: int = 0
    """Images that could be found in that state."""

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return rows_of(self.table)

    @cached_property
    def _hits(self) -> list[Hit]:
        rows = [dict(row) for row in self._rows]
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

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What the hits say as a whole: that all matches are weak, why there are fewer than k, what was left out."""
        return tuple(notes_of(self._hits, self.request.options))

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
            raise ConfigError(
                'pandas is not installed; run `pip install "clipsieve[notebook]"`, or use to_arrow()'
            ) from error

    def json_rows(self, start: int = 0) -> list[dict[str, Any]]:
        """The hits from a place on, as JSON can hold them."""
        return [json_row(row) for row in self._rows[start:]]

    def to_dict(self) -> dict[str, Any]:
        """The query, its hits, timings (ms), notes and warnings as plain values, for JSON."""
        return {
            "query": self.request.title,
            "hits": self.json_rows(),
            "timings_ms": {name: round(value, 3) for name, value in asdict(self.timings).items()},
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    def __repr__(self) -> str:
        """A few lines: the query, the best hits, and what there is to know."""
        strong = num_strong(self._hits)
        weak = f", {len(self) - strong} of them weak" if strong < len(self) else ""
        lines = [f"{len(self)} hits of {self.request.title!r}{weak} ({self.timings.total:.1f} ms)"]
        for hit in self._hits[:_IN_REPR]:
            relevance = "" if hit.relevance is None else f"  {hit.relevance:6.2f}"
            lines.append(f"{hit.rank:4d}  {hit.score:.4f}{relevance}  {hit.key}  {hit.caption or ''}".rstrip())
        if len(self) > _IN_REPR:
            lines.append(f"      and {len(self) - _IN_REPR} more")
        lines += [f"note: {note}" for note in self.notes] + [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(_cut(on_one_line(line)) for line in lines)

    def _repr_html_(self) -> str:
        """Thumbnails, for notebooks."""
        from query.hits.html import gallery  # brings Pillow

        return gallery(self.request.title, self, self.notes, self.warnings, self.timings)


def _cut(line: str) -> str:
    return line if len(line) <= _LINE else line[: _LINE - 3] + "..."
