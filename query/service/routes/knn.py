"""`/knn-service` and `/indices-list`: the interface of clip-retrieval's back end, for its clients."""

from typing import Annotated, Any
from urllib.parse import urljoin

import numpy as np
from fastapi import APIRouter, Request
from pydantic import (
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictBool,
    model_validator,
)
from starlette.responses import JSONResponse

from pipeline.source.access.naming import is_web
from query.service.answers import hit_answer
from query.service.problems import declared
from query.service.questions import MOST_HITS, Question, SearchParams, Text
from query.service.routes import uploads
from query.service.routes.shared import server_timing, service_of

DEDUPLICATE_COSINE = 0.94
"""From which cosine on clip-retrieval takes two images for near-duplicates."""


class KnnBody(BaseModel):
    """A query as clients of clip-retrieval send it. Empty values count as missing."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    text: Text | None = None
    """Honoured, as in `/search`. Of `text`, `image` and `embedding_input`, give one."""

    image: Base64Bytes | None = None
    """Honoured: an image file in base64."""

    image_url: str | None = None
    """Refused: this service fetches nothing that a client names. Send the image itself in `image`."""

    embedding_input: Annotated[list[FiniteFloat], Field(max_length=65_536, fail_fast=True)] | None = None
    """Honoured: a vector of the store's model. It is normalised, so that `similarity` is a cosine."""

    modality: Annotated[str, Field(max_length=20)] = "image"
    """`image` is honoured. `text` is refused: a store has no vectors of captions."""

    num_images: int = Field(40, ge=1, le=MOST_HITS)
    """Honoured: so many of the answers come with metadata."""

    num_result_ids: int | None = Field(None, ge=1, le=MOST_HITS)
    """Honoured: the number of answers. Those after `num_images` have only `id` and `similarity`."""

    indice_name: Annotated[str, Field(max_length=255)] | None = None
    """Honoured: a name from `/indices-list`; the first one if it is missing."""

    deduplicate: StrictBool = False
    """Honoured: leaves out near-duplicates of better answers, and fills up with others."""

    use_mclip: StrictBool = False
    """`true` is refused: texts are embedded by the model of the store."""

    use_safety_model: Any = None
    """Ignored: nothing is judged here. clip-retrieval ignores it, too, unless it was started with such a model."""

    use_violence_detector: Any = None
    """Ignored, as `use_safety_model`."""

    aesthetic_score: Any = None
    """Ignored: nothing is added to the query. clip-retrieval needs vectors for that, and ignores it without them."""

    aesthetic_weight: Any = None
    """Ignored, as `aesthetic_score`."""

    @model_validator(mode="after")
    def _refuse(self) -> "KnnBody":
        if self.image_url:
            raise ValueError("image_url: this service fetches no images; send the file itself in image, as base64")
        if self.modality != "image":
            raise ValueError(f"modality = {self.modality!r}: the store has only vectors of images; expected 'image'")
        if self.use_mclip:
            raise ValueError("use_mclip: texts are embedded by the model of the store; leave it out")
        if sum(map(bool, (self.text, self.image, self.embedding_input))) != 1:
            raise ValueError("expected one of text, image and embedding_input")
        return self

    def question(self) -> Question:
        """The same for the stores."""
        params = SearchParams(
            text=self.text or None,
            k=self.num_result_ids or self.num_images,
            unique_cosine=DEDUPLICATE_COSINE if self.deduplicate else None,
        )
        vector = np.array(self.embedding_input, np.float32) if self.embedding_input else None
        return Question(params, vector=vector, image=self.image or None)


class KnnHit(BaseModel):
    """One image, with the carried columns of the store."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    id: int
    similarity: float
    """Cosine of the vectors of query and image."""
    url: str = ""
    """The image: a carried column of that name if it is a web address, else the store's URI if others can reach it,
    else `/images/{id}`."""
    caption: str | None = None
    key: str = ""
    width: int | None = None
    height: int | None = None


router = APIRouter(tags=["clip-retrieval"])

_EXAMPLE = {"text": "two dogs playing in snow", "modality": "image", "num_images": 10, "indice_name": None}
_BODY = {"schema": KnnBody.model_json_schema(), "example": _EXAMPLE}


@router.post(
    "/knn-service",
    summary="Search as clip-retrieval",
    response_model=list[KnnHit],
    responses=declared(404, 409, 422),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": _BODY}}},
)
async def knn_service(request: Request) -> JSONResponse:
    """Find images as clip-retrieval's back end does, best first; the fields say what is honoured, ignored and refused.

    Point `clip_retrieval.clip_client.ClipClient` at this address. It cannot send a token.
    """
    # whatever its Content-Type: clip-retrieval's clients send none, or the wrong one
    service, body = service_of(request), uploads.parsed(await request.body(), KnnBody)
    store = service.stores.named(body.indice_name or None)
    hits = await service.ask(store, body.question())
    root_path, base_url = request.scope["root_path"], str(request.base_url)
    found = [hit_answer(store, row, hits.version, root_path) for row in hits.json_rows()]
    shown = [knn_hit(hit, base_url) for hit in found[: body.num_images]]
    rest = [{"id": hit["id"], "similarity": hit["score"]} for hit in found[body.num_images :]]
    return JSONResponse(shown + rest, headers=server_timing(hits))


@router.get("/indices-list", summary="Names of the stores", response_model=list[str], responses=declared())
async def indices_list(request: Request) -> JSONResponse:
    """What `indice_name` can be."""
    return JSONResponse([store.name for store in service_of(request).stores])


def knn_hit(hit: dict[str, Any], base_url: str) -> dict[str, Any]:
    """A hit of `/search`, as `KnnHit` says.

    Args:
        hit: As `HitAnswer` says.
        base_url: Where clients reach this service.
    """
    columns = hit["columns"]
    url = str(columns.get("url"))
    return {
        **columns,
        # front ends make links of it
        "url": url if is_web(url) else hit["uri"] or urljoin(base_url, hit["image"]),
        **{name: hit[name] for name in ("caption", "key", "width", "height", "id")},
        "similarity": hit["score"],
    }
