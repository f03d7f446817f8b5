"""What clients get, as JSON."""

from dataclasses import fields
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from query.hits.compare import Comparison
from query.hits.hit import Timings
from query.hits.hits import Hits
from query.hits.notes import num_strong
from query.service.questions import MOST_RANKS, Question
from query.service.stores import ServedStore, public_uri

_SHOWN_ELSEWHERE = ("rank", "id", "key", "uri", "score", "relevance", "caption", "duplicates", "width", "height")
_STAGES = tuple(stage.name for stage in fields(Timings))


class HitAnswer(BaseModel):
    """One image that was found."""

    rank: int = Field(examples=[1])
    id: int
    key: str = Field(examples=["dogs/0001.jpg"])
    uri: str | None
    """Where the image is, if others can reach it: null for files of the server."""
    score: float = Field(examples=[0.31])
    """Cosine of the vectors of query and image."""
    relevance: float | None = Field(examples=[1.2])
    """Below 1 it is a weak match. Null if it cannot be told."""
    caption: str | None
    duplicates: int
    """Near-duplicates that were left out for it."""
    width: int | None
    height: int | None
    columns: dict[str, Any]
    """The carried columns of the store."""
    image: str = Field(examples=["/images/12?store=store"])
    thumb: str = Field(examples=["/thumbs/12?store=store"])


class TimingsAnswer(BaseModel):
    """Milliseconds. Requests that came at the same time were answered together, and share them."""

    embed: float
    filter: float
    index: float
    hits: float


class SearchAnswer(BaseModel):
    """A page of hits, best first."""

    query: str
    store: str
    version: str
    """Another one after the index was replaced or images were deleted."""
    num_images: int
    """Images that can be found."""
    offset: int
    k: int
    has_more: bool
    num_strong: int
    """Hits of this page before the weak matches."""
    hits: list[HitAnswer]
    timings_ms: TimingsAnswer
    notes: list[str]
    """What the hits say as a whole: that nothing seems to match, why there are fewer, what was left out."""
    warnings: list[str]


class PairAnswer(BaseModel):
    """An image that either store found."""

    key: str
    first: HitAnswer | None
    second: HitAnswer | None
    moved: int | None
    """Ranks that it rose from the first store to the second."""
    in_first: bool | None
    """Whether the first store has it at all."""
    in_second: bool | None


class ComparisonAnswer(BaseModel):
    """The hits of two stores side by side."""

    query: str
    first: SearchAnswer
    second: SearchAnswer
    overlap: float | None
    """Share of the hits that both have."""
    rank_biased_overlap: float | None
    pairs: list[PairAnswer]


class StoreInfo(BaseModel):
    """A store."""

    name: str
    num_images: int
    model: str
    policy: str
    dim: int
    index: str
    version: str
    columns: list[str]
    """What `where` can use, besides `id`."""
    warnings: list[str]


class Info(BaseModel):
    """The service."""

    clipsieve: str
    """Its version."""
    stores: list[StoreInfo]


def search_answer(store: ServedStore, question: Question, hits: Hits, root_path: str) -> dict[str, Any]:
    """A page of hits, as `SearchAnswer` says."""
    offset, k = question.offset, question.params.k
    rows = [hit_answer(store, row, hits.version, root_path) for row in hits.json_rows(offset)]
    return {
        "query": question.title,
        "store": store.name,
        "version": hits.version,
        "num_images": hits.num_images,
        "offset": offset,
        "k": k,
        "has_more": len(hits) == offset + k < MOST_RANKS,
        "num_strong": max(0, num_strong(hits) - offset),
        "hits": rows,
        "timings_ms": {name: round(getattr(hits.timings, name), 3) for name in _STAGES},
        "notes": list(hits.notes),
        "warnings": list(hits.warnings),
    }


def hit_answer(store: ServedStore, row: dict[str, Any], version: str, root_path: str) -> dict[str, Any]:
    """A hit, as `HitAnswer` says."""
    place = f"{row['id']}?{_state(store.name, version)}"
    return {
        **{name: row.get(name) for name in _SHOWN_ELSEWHERE},
        "uri": public_uri(row["uri"]),
        "columns": {name: value for name, value in row.items() if name not in _SHOWN_ELSEWHERE},
        "image": f"{root_path}/images/{place}",
        "thumb": f"{root_path}/thumbs/{place}",
    }


@lru_cache(maxsize=16)
def _state(store: str, version: str) -> str:
    return urlencode({"store": store, "v": version})


def comparison_answer(compared: Comparison, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two answers side by side, as `ComparisonAnswer` says."""
    by_rank = [{hit["rank"]: hit for hit in answer["hits"]} for answer in (first, second)]
    return {
        "query": first["query"],
        "first": first,
        "second": second,
        "overlap": compared.overlap,
        "rank_biased_overlap": compared.rank_biased_overlap,
        "pairs": [
            {
                "key": pair.key,
                "first": by_rank[0][pair.first.rank] if pair.first else None,
                "second": by_rank[1][pair.second.rank] if pair.second else None,
                "moved": pair.moved,
                "in_first": pair.in_first,
                "in_second": pair.in_second,
            }
            for pair in compared.pairs
        ],
    }
