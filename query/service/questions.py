"""What clients may ask, and how it becomes a request."""

import re
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from pipeline.errors import ConfigError, InputError
from query.queries.options import Options
from query.queries.request import Request
from query.queries.terms import SLOT
from query.service.problems import ProblemError

MOST_RANKS = 2_000
"""How far down clients can page."""
MOST_HITS = 1_000
MOST_CHARACTERS = 2_000
LARGEST_ID = 2**63 - 1

MOST_SENTENCES = 32
"""Texts that a request has embedded: those of a weighted sum, in each template."""
MOST_SENTENCE_CHARACTERS = 50_000
PRIVATE_COLUMN = "uri"

Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]

_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[^\W\d]\w*""")


def _reads_nothing_private(where: str) -> str:
    """Refuse a condition on where images are: with enough of them, anybody could spell out a path of this machine."""
    if any(token.strip('"').lower() == PRIVATE_COLUMN for token in _TOKEN.findall(where)):
        raise ValueError(f"the service has no conditions on {PRIVATE_COLUMN}; use key")
    return where


Condition = Annotated[Text, AfterValidator(_reads_nothing_private)]


class SearchParams(BaseModel):
    """A query, and which images count. Several parts of a query are added."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    text: Text | None = Field(None, examples=["two dogs playing in snow"])
    """A text, or a weighted sum such as `"beach" + 0.5*"sunset" - "people"`."""

    like: Annotated[list[Annotated[int, Field(ge=0, le=LARGEST_ID)]], Field(max_length=32)] = []
    """Ids of images of the store, to find similar ones. They are not among the hits."""

    like_key: Annotated[list[Text], Field(max_length=32)] = []
    """Keys of images of the store, to find similar ones. They are not among the hits."""

    where: Annotated[list[Condition], Field(max_length=8)] = []
    """Only images for which all of these conditions hold, such as `width > 512`."""

    template: Annotated[list[Text], Field(max_length=16)] = []
    """Sentences with `{}` in place of the text, such as `a photo of {}`. Their vectors are averaged."""

    k: int = Field(24, ge=1, le=MOST_HITS)
    """Hits per page."""

    unique: bool = False
    """Leave out near-duplicates of better hits."""

    unique_cosine: float | None = Field(None, gt=0, le=1)
    """Leave out near-duplicates: images whose cosine with a better hit is at least this."""

    min_relevance: FiniteFloat | None = None
    """Leave out hits with less relevance. Below 1, a hit is a weak match."""


class StoreParams(SearchParams):
    """A query to one store, and which page of its hits."""

    offset: int = Field(0, ge=0, lt=MOST_RANKS)
    """Hits to skip: those of the pages before."""

    store: Annotated[str, Field(max_length=255)] | None = None
    """Name of the store. The first one by default."""

    @model_validator(mode="after")
    def _check_ranks(self) -> "StoreParams":
        if self.offset + self.k > MOST_RANKS:
            raise ValueError(f"offset + k = {self.offset + self.k}: expected at most {MOST_RANKS}")
        return self


class SearchBody(StoreParams):
    """A query with what does not fit an address."""

    vector: Annotated[list[FiniteFloat], Field(max_length=65_536, fail_fast=True)] | None = None
    """A vector of the store's model, of any length."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks, of whichever store."""

    params: SearchParams
    offset: int = 0
    """Hits to skip."""
    vector: np.ndarray | None = None
    image: bytes | None = field(default=None, repr=False)
    """The file of an image to look for."""

    def request(self, image_vector: np.ndarray | None = None) -> Request:
        """The request to the store.

        Args:
            image_vector: The vector [E] of `image`, by the model of the store.

        Raises:
            ProblemError: If it asks nothing, or an option is out of range.
        """
        params = self.params
        vectors = [one for one in (self.vector, image_vector) if one is not None]
        if len(vectors) > 1:
            raise ProblemError(422, "vector and image are both given; give one of them")
        try:
            request = Request(
                text=params.text,
                templates=tuple(params.template),
                like=(*params.like, *params.like_key),
                vector=vectors[0] if vectors else None,
                options=Options(
                    k=self.offset + params.k,
                    where=tuple(params.where),
                    unique=params.unique_cosine or params.unique,
                    min_relevance=params.min_relevance,
                ),
            )
        except (ConfigError, InputError) as error:
            raise ProblemError.of(error) from error
        _check_sentences(request)
        return request

    @property
    def title(self) -> str:
        """What is asked, for people."""
        parts = [] if self.params.text is None else [self.params.text]
        parts += [] if self.image is None else ["an image"]
        parts += [] if self.vector is None else ["a vector"]
        return " + ".join(parts + [f"like {one}" for one in (*self.params.like, *self.params.like_key)])


def _check_sentences(request: Request) -> None:
    """Refuse what would keep the model busy for long: a search that has begun cannot be ended."""
    num_sentences, num_characters = request.num_sentences, 0
    if request.text is not None:
        slots = sum(template.count(SLOT) for template in request.templates or (SLOT,))
        num_characters = num_sentences * max(map(len, request.templates or (SLOT,))) + slots * len(request.text)
    if num_sentences > MOST_SENTENCES or num_characters > MOST_SENTENCE_CHARACTERS:
        raise ProblemError(
            422,
            f"the text in its templates is {num_sentences} sentences of up to {num_characters} characters in all; "
            f"expected at most {MOST_SENTENCES} and {MOST_SENTENCE_CHARACTERS}",
        )
