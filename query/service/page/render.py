"""Fills the templates: answers as HTML. All that the page shows is decided here and in the templates.

All links are relative, so the page works under any path.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from query.hits.notes import WEAK_BELOW
from query.hits.relevance import WEAK
from query.service.questions import MOST_HITS

_MOST_DRAWN = 48
"""Ranks of the drawing of what moved. With more, its lines could not be told apart."""
_ALIKE = 1.2
"""Up to which factor shapes count as the same."""


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
    return _unpaired("gone", pair["in_second"], other)


def _after(pair: dict[str, Any], other: dict[str, Any]) -> Mark:
    if (moved := pair["moved"]) is not None:
        was = f"rank {pair['first']['rank']} in {other['store']}"
        kind = _direction(moved)
        return Mark(kind, str(abs(moved)) if moved else "", f"{kind} {abs(moved)}, {was}" if moved else f"also {was}")
    return _unpaired("new", pair["in_first"], other)


def _unpaired(kind: str, is_in_other: bool | None, other: dict[str, Any]) -> Mark:
    """The mark of a hit that is none of the other store."""
    if is_in_other is False:
        return Mark("absent", f"not in {other['store']}", f"{other['store']} does not have this image at all")
    return Mark(kind, kind, f"not among the first {other['k']} of {other['store']}")


def _direction(moved: int) -> str:
    return "up" if moved > 0 else "down" if moved < 0 else "same"


def moves(before: Sequence[Card], after: Sequence[Card]) -> list[tuple[str, int]]:
    """How many images moved in which way, from the cards of `marked`."""
    kinds = [card.mark.kind for card in after]
    kinds += [card.mark.kind for card in before if card.mark.kind in ("gone", "absent")]
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


def _searching(timings: dict[str, float]) -> float:
    """What a search took without embedding the query. Only that can be compared: one store may know the text."""
    return sum(value for stage, value in timings.items() if stage != "embed")


_ENVIRONMENT = Environment(
    loader=PackageLoader("query.service.page"),
    autoescape=True,
    undefined=StrictUndefined,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"number": _number, "ms": _milliseconds, "searching": _searching}
_ENVIRONMENT.globals |= {
    "weak": WEAK,
    "weak_below": WEAK_BELOW,
    "most_hits": MOST_HITS,
    "stage_names": {"embed": "query", "filter": "filter", "index": "index", "hits": "metadata"},
    "shape": shape,
    "cards": cards,
    "marked": marked,
    "moves": moves,
    "drawn": drawn,
    "most_drawn": _MOST_DRAWN,
}
