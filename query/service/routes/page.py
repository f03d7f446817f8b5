"""The page for people, and its files."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import HTMLResponse, Response

from query.service import page as page_package
from query.service.answers import comparison_answer, search_answer
from query.service.page.images import HERE, liked, some_images, some_texts
from query.service.page.page_query import PageQuery
from query.service.page.render import render
from query.service.problems import ProblemError
from query.service.questions import Question, SearchParams, StoreParams
from query.service.routes import uploads
from query.service.routes.shared import server_timing, service_of
from query.service.service import Service
from query.service.stores import ServedStore

router = APIRouter(include_in_schema=False)  # for people; programs have /search

_STATIC = Path(page_package.__file__).with_name("static")
_MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_FILES = {path.name: path.read_bytes() for path in _STATIC.iterdir() if path.suffix in _MEDIA_TYPES}


@router.get("/")
async def page(request: Request) -> Response:
    """The search that the address names, or what there is to search."""
    return await _page(request, PageQuery.of(request.query_params.multi_items()))


@router.post("/")
async def page_of_image(request: Request) -> Response:
    """The images that are like one that is sent."""
    try:
        if uploads.media_type_of(request) != uploads.FORM:
            raise ProblemError(415, f"the body is not a form; expected {uploads.FORM}")
        fields, image = await uploads.read_form(request, _Fields)
    except ProblemError as error:
        return await _shown(request, _state(request, PageQuery()), error.status, error.headers, problem=error.detail)
    return await _page(request, PageQuery.of(fields.items), image)


@router.get("/static/{name}")
async def static(name: str, request: Request) -> Response:
    """A file of the page."""
    content = _FILES.get(name)
    if content is None:
        raise ProblemError(404, f"the page has no file {name!r}")
    headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"', "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_MEDIA_TYPES[Path(name).suffix])


class _Fields(BaseModel):
    """What a form holds, before anything is checked, so that the page can show it again."""

    model_config = ConfigDict(extra="allow")

    like: list[str] = []
    like_key: list[str] = []
    where: list[str] = []
    template: list[str] = []

    @property
    def items(self) -> list[tuple[str, str]]:
        """Fields and values, one by one."""
        found = self.model_dump()
        return [(name, one) for name, some in found.items() for one in (some if isinstance(some, list) else [some])]


async def _page(request: Request, query: PageQuery, image: bytes | None = None) -> Response:
    service, state = service_of(request), _state(request, query, image is not None)
    try:
        params = query.params()
        if not state["compares"]:
            state["store"] = service.stores.named(params.store)
        state["liked"] = await asyncio.to_thread(liked, state["store"], params)
        if not query.asks and image is None:
            return await _shown(request, state, **await asyncio.to_thread(_first_visit, state["store"]))
        found, timing = await (_compared if state["compares"] else _found)(service, params, image)
        return await _shown(request, state, headers=timing, **found)
    except ProblemError as error:
        return await _shown(request, state, error.status, error.headers, problem=error.detail)


def _state(request: Request, query: PageQuery, has_image: bool = False) -> dict[str, Any]:
    """What the form around the results shows."""
    stores = list(service_of(request).stores)
    compares = query.compares or (len(stores) > 1 and not query.items and not has_image)
    return {
        "query": query,
        "stores": stores,
        "store": stores[0],
        "compares": compares,
        "has_image": has_image,
        "liked": [],
        "title": "",
    }


async def _shown(
    request: Request,
    state: dict[str, Any],
    status: int = 200,
    headers: dict[str, str] | None = None,
    view: str = "problem",
    **values: Any,
) -> Response:
    template = "fragment.html" if "fragment" in request.query_params else "page.html"
    content = await asyncio.to_thread(render, template, **{**state, "view": view, **values})
    return HTMLResponse(content, status, {"Cache-Control": "no-cache", **(headers or {})})


async def _found(service: Service, params: StoreParams, image: bytes | None) -> tuple[dict[str, Any], dict[str, str]]:
    question = Question(params, params.offset, image=image)
    store = service.stores.named(params.store)
    hits = await service.ask(store, question)
    answer = search_answer(store, question, hits, HERE)
    return {"view": "search", "answer": answer, "title": answer["query"]}, server_timing(hits)


async def _compared(
    service: Service, params: SearchParams, image: bytes | None
) -> tuple[dict[str, Any], dict[str, str]]:
    question = Question(params, image=image)
    both = await service.ask_both(question)
    answer = await asyncio.to_thread(comparison_answer, service.both, question, both, HERE)
    return {"view": "compare", "answer": answer, "title": answer["query"]}, server_timing(*both)


def _first_visit(store: ServedStore) -> dict[str, Any]:
    images = some_images(store)
    return {"view": "first", "texts": some_texts(images), "images": images}
