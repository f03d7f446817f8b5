"""Two answers to one question side by side, by key: what moved, what is new, what is gone.

The first answer is where an image was, the second where it is now. Typically the two are those of two stores of the
same images: embedded with and without pruning, or by two models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from query.hits.hit import Hit
from query.hits.hits import Hits
from query.hits.values import json_rows

PERSISTENCE = 0.9
"""Of rank-biased overlap: the first 10 ranks have 86 % of the weight."""

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("rank", pa.int32()),
        pa.field("rank2", pa.int32()),
        pa.field("moved", pa.int32()),
        pa.field("score", pa.float32()),
        pa.field("score2", pa.float32()),
        pa.field("relevance", pa.float32()),
        pa.field("relevance2", pa.float32()),
        pa.field("id", pa.int64()),
        pa.field("id2", pa.int64()),
        pa.field("in_store", pa.bool_()),
        pa.field("in_store2", pa.bool_()),
        pa.field("uri", pa.string()),
        pa.field("caption", pa.string()),
    ]
)
"""Of `Comparison.to_arrow`. The names that end in 2 are of the second answer; URI and caption are of the first one that
has the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An image that either answer has."""

    key: str
    first: Hit | None
    """Its hit in the first answer; None if it is not among its hits."""
    second: Hit | None
    in_first: bool | None
    """Whether the first store has it at all. None if that store cannot tell."""
    in_second: bool | None

    @property
    def moved(self) -> int | None:
        """By how many ranks it rose from the first answer to the second; None if it is not in both."""
        return self.first.rank - self.second.rank if self.first and self.second else None


@dataclass(frozen=True)
class Comparison:
    """Two answers side by side."""

    first: Hits
    second: Hits
    pairs: tuple[Pair, ...]
    """In the order of the better of both ranks."""

    @property
    def overlap(self) -> float | None:
        """Overlap@k: the share of the longer answer that is in both. None if neither has hits."""
        longer = max(len(_by_key(self.first)), len(_by_key(self.second)))
        return sum(pair.moved is not None for pair in self.pairs) / longer if longer else None

    @cached_property
    def rank_biased_overlap(self) -> float | None:
        """See `rank_biased_overlap`, with `PERSISTENCE`."""
        return rank_biased_overlap(list(_by_key(self.first)), list(_by_key(self.second)))

    def to_arrow(self) -> pa.Table:
        """One row per pair, with `SCHEMA`."""
        return pa.Table.from_pylist([_row(pair) for pair in self.pairs], SCHEMA)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        facts = [hits.to_dict() for hits in (self.first, self.second)]
        return {
            "query": self.first.request.title,
            "overlap": self.overlap,
            "rank_biased_overlap": self.rank_biased_overlap,
            "pairs": json_rows(self.to_arrow()),
            **{
                name: {key: fact[key] for key in ("timings_ms", "notes", "warnings")}
                for name, fact in zip(("first", "second"), facts, strict=True)
            },
        }


def compare(first: Hits, second: Hits) -> Comparison:
    """Compare two answers by key. If a key is twice in one answer, its better rank counts.

    Args:
        first: Where images were.
        second: Where they are now: from the same store or another one.
    """
    before, after = _by_key(first), _by_key(second)
    only_first, only_second = [key for key in before if key not in after], [key for key in after if key not in before]
    in_first = dict.fromkeys(before, True) | dict(zip(only_second, first.asked.has_keys(only_second), strict=True))
    in_second = dict.fromkeys(after, True) | dict(zip(only_first, second.asked.has_keys(only_first), strict=True))

    def best(key: str) -> tuple[int, int]:
        ranks = [hit.rank for hit in (before.get(key), after.get(key)) if hit]
        return min(ranks), key not in before

    pairs = [
        Pair(key=key, first=before.get(key), second=after.get(key), in_first=in_first[key], in_second=in_second[key])
        for key in sorted({**before, **after}, key=best)
    ]
    return Comparison(first, second, tuple(pairs))


def rank_biased_overlap(first: Sequence[str], second: Sequence[str], persistence: float = PERSISTENCE) -> float | None:
    """How much two rankings agree, from 0 to 1; the top counts most.

    The extrapolated form for rankings of any length: Webber, Moffat and Zobel, A similarity measure for indefinite
    rankings (2010), equation 32.

    Args:
        first: Different names, best first.
        second: The same.
        persistence: How far down it looks, above 0 and below 1: the weight of each rank is so many times that of the
            one before.

    Returns:
        1 for equal rankings, 0 for those that share nothing, None if both are empty.
    """
    short, long = sorted((first, second), key=len)
    if not short:
        return 0.0 if long else None
    p, s, l = persistence, len(short), len(long)  # noqa: E741 - the letters of the paper
    common = _shared_by_depth(short, long)
    agreement = sum(common[d - 1] / d * p**d for d in range(1, l + 1))
    agreement += sum(common[s - 1] * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    rest = ((common[l - 1] - common[s - 1]) / l + common[s - 1] / s) * p**l
    return (1 - p) / p * agreement + rest


def _shared_by_depth(short: Sequence[str], long: Sequence[str]) -> list[int]:
    """How many names the first d of each ranking share, for d = 1 to the length of the longer one."""
    seen_short, seen_long, counts = set[str](), set[str](), list[int]()
    for depth, name in enumerate(long):
        shared = counts[-1] if counts else 0
        seen_long.add(name)
        shared += name in seen_short
        if depth < len(short):
            seen_short.add(short[depth])
            shared += short[depth] in seen_long
        counts.append(shared)
    return counts


def _by_key(hits: Hits) -> dict[str, Hit]:
    found: dict[str, Hit] = {}
    for hit in hits:
        found.setdefault(hit.key, hit)
    return found


def _row(pair: Pair) -> dict[str, Any]:
    row: dict[str, Any] = {"key": pair.key, "moved": pair.moved}
    row |= {"in_store": pair.in_first, "in_store2": pair.in_second}
    for hit, suffix in ((pair.first, ""), (pair.second, "2")):
        if hit:
            row |= {f"{name}{suffix}": getattr(hit, name) for name in ("rank", "score", "relevance", "id")}
    one = pair.first or pair.second
    return row | {"uri": one.uri, "caption": one.caption}
