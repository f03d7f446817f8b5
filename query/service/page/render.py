"""Fills the templates: answers as HTML. All that the page shows is decided here and in the templates.

All links are relative, so the page works under any path.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError

from query.hits.notes import WEAK_BELOW
from query.hits.relevance import WEAK
from query.queries.options import DUPLICATE_COSINE
from query.service.problems import ProblemError, invalid
from query.service.questions import MOST_HITS, StoreParams

_MOST_DRAWN = 48
"""Ranks of the drawing of what moved. With more, its lines could not be told apart."""
_FILTERS = ("where", "min_relevance", "unique", "unique_cosine")
_ALIKE = 1.2
"""Up to which factor shapes count as the same."""
_LISTS = tuple(name for name, field in StoreParams.model_fields.items() if field.get_default() == [])


@dataclass(frozen=True, slots=True)
class Typed:
    """What an address or a form holds, as it was typed. Empty fields count as missing."""

    items: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, items: Iterable[tuple[str, str]]) -> "Typed":
        """Leave out what is empty or a repetition, and what only says how to answer."""
        return cls(tuple(dict.fromkeys((name, value) for name, value in items if value.strip() and name != "fragment")))

    def all(self, name: str) -> list[str]:
        """The values of a field."""
        return [value for one, value in self.items if one == name]

    def one(self, name: str) -> str:
        """The last value of a field, or nothing."""
        return (self.all(name) or [""])[-1]

    def but(self, **changes: Any) -> "Typed":
        """The same with other values: of fields that are named, none, one or several."""
        items = [(name, value) for name, value in self.items if name not in changes]
        for name, values in changes.items():
            some = values if isinstance(values, list) else [] if values is None else [values]
            items += [(name, str(value)) for value in some]
        return Typed(tuple(items))

    @property
    def address(self) -> str:
        """The link to it from the page."""
        return f"?{urlencode(self.items)}" if self.items else "./"

    def without(self, name: str, value: object) -> "Typed":
        """The same without one value of a field, from the first hit on."""
        return Typed(tuple(item for item in self.items if item != (name, str(value)) and item[0] != "offset"))

    @property
    def filters(self) -> list[str]:
        """The fields that leave out images."""
        return [name for name, _ in self.items if name in _FILTERS]

    @property
    def unfiltered(self) -> "Typed":
        """The same without them."""
        return self.but(**dict.fromkeys(_FILTERS))

    def elsewhere(self, liked: Sequence[dict[str, Any]]) -> "Typed":
        """The same for any store: images by their keys, since ids are those of one store, and from the first hit on."""
        names = [one["hit"]["key"] if one["hit"] else one["value"] for one in liked]
        return self.but(like=None, like_key=names, store=None, compare=None, offset=None)

    @property
    def compares(self) -> bool:
        """Whether both stores are asked."""
        return self.one("compare") == "1"

    @property
    def asks(self) -> bool:
        """Whether there is a query at all."""
        return any(name in ("text", "like", "like_key") for name, _ in self.items)

    def params(self) -> StoreParams:
        """What it asks.

        Raises:
            ProblemError: 422 if a field has no such value, or there is no such field.
        """
        if self.one("image"):
            raise ProblemError(422, "an address cannot hold an image; press “Search with this image” to send it")
        values: dict[str, Any] = {name: self.all(name) if name in _LISTS else self.one(name) for name, _ in self.items}
        values.pop("compare", None)
        if self.compares:  # both stores, and always from the first hit
            values = {name: value for name, value in values.items() if name not in ("store", "offset")}
        try:
            return StoreParams.model_validate(values)
        except ValidationError as error:
            raise ProblemError(422, invalid(error.errors())) from error


@dataclass(frozen=True, slots=True)
class Mark:
    """How the rank of a hit differs in the other store."""

    kind: str
    """up, down, same, new, gone, or absent: not in the other store at all."""
    short: str
    long: str


@dataclass(frozen=True, slots=True)
class Card:
    """A hit as it is shown."""

    hit: dict[str, Any]
    """A `HitAnswer`."""
    field: str
    """What names the image in a query: like or like_key."""
    value: int | str
    mark: Mark | None = None


def shape(hits: Sequence[dict[str, Any]]) -> str:
    """How a grid of these images looks best: tiles of one shape, or rows of equal height if their shapes differ."""
    ratios = [hit["width"] / hit["height"] if hit["width"] and hit["height"] else 1.0 for hit in hits]
    if max(ratios) > _ALIKE * min(ratios):
        return "justified"
    return "wide" if min(ratios) > _ALIKE else "tall" if max(ratios) < 1 / _ALIKE else "square"


def cards(answer: dict[str, Any]) -> list[Card]:
    """The hits of one store.

    Args:
        answer: A `SearchAnswer`.
    """
    return [Card(hit, "like", hit["id"]) for hit in answer["hits"]]


def marked(answer: dict[str, Any]) -> tuple[list[Card], list[Card]]:
    """The hits of both stores. Queries name images by their ids in the first store, or by key if it has not found them.

    Args:
        answer: A `ComparisonAnswer`.
    """
    pairs = {pair["key"]: pair for pair in answer["pairs"]}
    first, second = answer["first"], answer["second"]
    after = []
    for hit in second["hits"]:
        pair = pairs[hit["key"]]
        name = ("like", pair["first"]["id"]) if pair["first"] else ("like_key", hit["key"])
        after.append(Card(hit, *name, _after(pair, first)))
    return [Card(hit, "like", hit["id"], _before(pairs[hit["key"]], second)) for hit in first["hits"]], after


def _before(pair: dict[str, Any], other: dict[str, Any]) -> Mark:
    if pair["moved"] is not None:
        rank = pair["second"]["rank"]
        short = f"now {rank}" if pair["moved"] else ""
        return Mark(
            _direction(pair["moved"]), short, f"{'' if pair['moved'] else 'also '}rank {rank} in {other['store']}"
        )
    if pair["in_second"] is False:
        return Mark("absent", "not in store", f"{other['store']} does not have this image at all")
    return Mark("gone", "gone", f"not among the first {other['k']} of {other['store']}")


def _after(pair: dict[str, Any], other: dict[str, Any]) -> Mark:
    if (moved := pair["moved"]) is not None:
        was = f"rank {pair['first']['rank']} in {other['store']}"
        kind = _direction(moved)
        return Mark(kind, str(abs(moved)) if moved else "", f"{kind} {abs(moved)}, {was}" if moved else f"also {was}")
    if pair["in_first"] is False:
        return Mark("absent", "only here", f"{other['store']} does not have this image at all")
    return Mark("new", "new", f"not among the first {other['k']} of {other['store']}")


def _direction(moved: int) -> str:
    return "up" if moved > 0 else "down" if moved < 0 else "same"


def moves(answer: dict[str, Any]) -> list[tuple[str, int]]:
    """How many images moved in which way."""
    before, after = marked(answer)
    kinds = [card.mark.kind for card in after] + [
        card.mark.kind for card in before if card.mark.kind in ("gone", "absent")
    ]
    return [(kind, kinds.count(kind)) for kind in ("up", "down", "same", "new", "gone", "absent") if kind in kinds]


def drawn(answer: dict[str, Any]) -> list[tuple[str, int | None, int | None]]:
    """The lines from rank to rank: the way it went, where it was, where it is."""
    lines = []
    for pair in answer["pairs"]:
        was, now = (pair[name]["rank"] if pair[name] else None for name in ("first", "second"))
        if min(was or math.inf, now or math.inf) <= _MOST_DRAWN:
            kind = _direction(was - now) if was and now else "gone" if was else "new"
            lines.append((kind, was, now))
    return lines


def render(template: str, **values: Any) -> str:
    """A page or a piece of one."""
    return _ENVIRONMENT.get_template(template).render(values)


def _number(value: float) -> str:
    return f"{value:,}"


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


_ENVIRONMENT = Environment(
    loader=PackageLoader("query.service.page"),
    autoescape=True,
    undefined=StrictUndefined,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _searching(timings: dict[str, float]) -> float:
    """What a search took without embedding the query. Only that can be compared: one store may know the text."""
    return sum(value for stage, value in timings.items() if stage != "embed")


_ENVIRONMENT.filters |= {"number": _number, "ms": _milliseconds, "searching": _searching}
_ENVIRONMENT.globals |= {
    "weak": WEAK,
    "weak_below": WEAK_BELOW,
    "duplicate_cosine": DUPLICATE_COSINE,
    "most_hits": MOST_HITS,
    "stage_names": {"embed": "query", "filter": "filter", "index": "index", "hits": "metadata"},
    "shape": shape,
    "cards": cards,
    "marked": marked,
    "moves": moves,
    "drawn": drawn,
    "most_drawn": _MOST_DRAWN,
}
