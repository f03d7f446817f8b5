"""What clients get, as JSON."""

from dataclasses import fields
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field

from query.hits.compare import compare
from query.hits.hit import Timings
from query.hits.hits import Hits
from query.hits.notes import num_strong
from query.service.questions import MOST_RANKS, Question
from query.service.stores import ServedStore, public_uri

_FIELDS_OF_HITS = ("rank", "id", "key", "uri", "score", "relevance", "caption", "duplicates", "width", "height")
_STAGES = tuple(stage.name for stage in fields(Timings))


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class HitAnswer(_Answer):
    """One image that was found."""

    rank: int = Field(examples=[1])
    id: int
    key: str = Field(examples=["dogs/0001.jpg"])
    uri: str | None
    """Where the image comes from. Null if that is a file of the server."""
    score: float = Field(examples=[0.31])
    """Cosine of the vectors of query and image."""
    relevance: float | None = Field(examples=[1.2])
    """Below 1, the hit is a weak match. Null if the store is too small to tell."""
    caption: str | None
    duplicates: int
    """Near-duplicates of this hit that were left out."""
    width: int | None
    """Pixels."""
    height: int | None
    """Pixels."""
    columns: dict[str, Any]
    """The carried columns of the store."""
    image: str = Field(examples=["/images/12?store=photos&v=4c1d0e5f9a2b"])
    """Address of the image on this service."""
    thumb: str = Field(examples=["/thumbs/12?store=photos&v=4c1d0e5f9a2b"])
    """Address of its thumbnail."""


class TimingsAnswer(_Answer):
    """Milliseconds of each stage. Requests that came at the same time were answered together, and share them."""

    embed: float
    """Embedding the query."""
    filter: float
    """Applying the conditions."""
    index: float
    """Searching the index."""
    hits: float
    """Reading the columns of the hits."""


class SearchAnswer(_Answer):
    """A page of hits, best first."""

    query: str
    """The query in words."""
    store: str
    """Name of the store."""
    version: str
    """State of the store. It changes when the index is replaced or images are deleted."""
    num_images: int
    """Images that can be found."""
    offset: int
    k: int
    has_more: bool
    """Whether there may be another page."""
    num_strong: int
    """Hits of this page before the weak matches."""
    hits: list[HitAnswer]
    timings_ms: TimingsAnswer
    notes: list[str]
    """What the hits say as a whole: that all matches are weak, why there are fewer, what was left out."""
    warnings: list[str]
    """What to know about the query and the index."""


class PairAnswer(_Answer):
    """An image that is a hit of at least one of the stores."""

    key: str
    first: HitAnswer | None
    """The hit of the first store."""
    second: HitAnswer | None
    """The hit of the second store."""
    moved: int | None
    """Ranks that it rose from the first store to the second. Null if it is a hit of only one."""
    in_first: bool | None
    """Whether the first store has the image at all. Null if that cannot be told."""
    in_second: bool | None
    """Whether the second store has the image at all. Null if that cannot be told."""


class ComparisonAnswer(_Answer):
    """The hits of two stores side by side."""

    query: str
    first: SearchAnswer
    second: SearchAnswer
    overlap: float | None
    """Share of the hits that both have. Null if there are no hits."""
    rank_biased_overlap: float | None
    """From 0 to 1. The first ranks count most."""
    pairs: list[PairAnswer]


class StoreInfo(_Answer):
    """A store."""

    name: str
    num_images: int
    """Images that can be found."""
    model: str
    policy: str
    """How the image tower was pruned: `none` if it was not, `imported` if others made the vectors."""
    gmacs: float | None
    """Multiply-adds of the image tower for one image, in billions. Null until it is loaded, and of imported images."""
    dim: int
    """Width of the vectors."""
    index: str
    """Kind of the index, as FAISS names it."""
    version: str
    """State of the store. It changes when the index is replaced or images are deleted."""
    columns: list[str]
    """What `where` can use, besides `id`."""
    warnings: list[str]
    """What to know about the index."""


class Info(_Answer):
    """The service."""

    clipsieve: str
    """Version of the software."""
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
        "has_more": len(hits) == offset + k < min(hits.num_images, MOST_RANKS),
        "num_strong": max(0, num_strong(hits) - offset),
        "hits": rows,
        "timings_ms": {name: round(getattr(hits.timings, name), 3) for name in _STAGES},
        "notes": list(hits.notes),
        "warnings": list(hits.warnings),
    }


def hit_answer(store: ServedStore, row: dict[str, Any], version: str, root_path: str) -> dict[str, Any]:
    """A hit, as `HitAnswer` says."""
    address = f"{row['id']}?{_store_and_version(store.name, version)}"
    return {
        **{name: row.get(name) for name in _FIELDS_OF_HITS},
        "uri": public_uri(row["uri"]),
        "columns": {name: value for name, value in row.items() if name not in _FIELDS_OF_HITS},
        "image": f"{root_path}/images/{address}",
        "thumb": f"{root_path}/thumbs/{address}",
    }


@lru_cache(maxsize=16)
def _store_and_version(store: str, version: str) -> str:
    return urlencode({"store": store, "v": version})


def comparison_answer(
    stores: tuple[ServedStore, ServedStore], question: Question, both: tuple[Hits, Hits], root_path: str
) -> dict[str, Any]:
    """The hits of two stores side by side, as `ComparisonAnswer` says. Looks for keys in the whole of both stores."""
    compared = compare(*both)
    first, second = (search_answer(store, question, hits, root_path) for store, hits in zip(stores, both, strict=True))
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
