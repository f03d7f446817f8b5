"""`/search` and `/compare`."""

import asyncio
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse

from query.service.answers import ComparisonAnswer, SearchAnswer, comparison_answer, search_answer
from query.service.problems import ProblemError, declared
from query.service.questions import Question, SearchBody, SearchParams, StoreParams
from query.service.routes import uploads
from query.service.routes.shared import server_timing, service_of

router = APIRouter(tags=["search"])


@router.get("/search", summary="Search", response_model=SearchAnswer, responses=declared(404, 409, 422))
async def search(params: Annotated[StoreParams, Query()], request: Request) -> JSONResponse:
    """Find the images that best match a text or images of the store, best first."""
    return await _answer(request, Question(params, params.offset), params.store)


@router.post(
    "/search",
    summary="Search with an image, a vector or a long query",
    response_model=SearchAnswer,
    responses=declared(404, 409, 415, 422),
    openapi_extra={"requestBody": uploads.body_schema()},
)
async def search_with_body(request: Request) -> JSONResponse:
    """Find the images that best match an uploaded image, a vector, or a query that does not fit an address."""
    match uploads.media_type_of(request):
        case uploads.JSON:
            body = await uploads.read_json(request, SearchBody)
            question = Question(body, body.offset, None if body.vector is None else _float32(body.vector))
        case uploads.FORM:
            body, image = await uploads.read_form(request, StoreParams)
            question = Question(body, body.offset, image=image)
        case other:
            raise ProblemError(415, f"the body is {other or 'of no type'}; expected {uploads.JSON} or {uploads.FORM}")
    return await _answer(request, question, body.store)


@router.get(
    "/compare", summary="Compare both stores", response_model=ComparisonAnswer, responses=declared(404, 409, 422)
)
async def compare(params: Annotated[SearchParams, Query()], request: Request) -> JSONResponse:
    """Search both stores, and show what moved in the ranking from the first to the second."""
    service, question = service_of(request), Question(params)
    both = await service.ask_both(question)
    root_path = request.scope["root_path"]
    answer = await asyncio.to_thread(comparison_answer, service.both, question, both, root_path)
    return JSONResponse(answer, headers=server_timing(*both))


def _float32(vector: list[float]) -> np.ndarray:
    with np.errstate(over="ignore"):  # an infinite one is refused later
        return np.array(vector, np.float32)


async def _answer(request: Request, question: Question, store_name: str | None) -> JSONResponse:
    service = service_of(request)
    store = service.stores.named(store_name)
    hits = await service.ask(store, question)
    answer = search_answer(store, question, hits, request.scope["root_path"])
    return JSONResponse(answer, headers=server_timing(hits))
