"""`/images/{id}` and `/thumbs/{id}`: only images of the stores that are served."""

import asyncio
import hashlib
import re
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from query.service.images import placeholder
from query.service.images.messages import MEDIA_TYPES
from query.service.problems import ProblemError, declared
from query.service.questions import LARGEST_ID
from query.service.routes.shared import service_of
from query.service.service import Service
from query.service.stores import ServedStore

router = APIRouter(tags=["images"])

YEAR_S = 31_536_000
_SUFFIXES = {media_type: f".{kind.lower()}" for kind, media_type in MEDIA_TYPES.items()} | {"image/jpeg": ".jpg"}
_LONGEST_NAME = 100

Id = Annotated[int, Path(alias="id", ge=0, le=LARGEST_ID, description="Id of an image of the store.")]
StoreName = Annotated[str | None, Query(max_length=255, description="Name of the store. The first one by default.")]
Version = Annotated[
    str | None,
    Query(
        max_length=255,
        description="The `version` of the answer that named the image. With it, browsers keep the image.",
    ),
]


def _responses(*media_types: str) -> dict[int | str, dict[str, Any]]:
    picture: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    found = declared(404, 422)
    found[404] |= {
        "description": "The store has no such image, or its file cannot be shown. Clients that accept images get a "
        "picture that says why.",
        "content": {**found[404]["content"], placeholder.MEDIA_TYPE: picture},
    }
    return found | {
        200: {"description": "The image.", "content": dict.fromkeys(media_types, picture)},
        304: {"description": "The client has it already."},
    }


@router.get("/thumbs/{id}", summary="Thumbnail", response_class=Response, responses=_responses("image/webp"))
async def thumb(request: Request, id_: Id, store: StoreName = None, v: Version = None) -> Response:
    """A small WebP of an image of a store, upright and without metadata."""
    service, served, row = await _asked(request, store, id_)
    found = await service.thumbs.get((served.name, row["version"], id_), row["uri"])
    if isinstance(found, str):
        return await _not_shown(request, served, id_, found, 1)
    return _shown(request, found, "image/webp", row["key"], v == row["version"])


@router.get("/images/{id}", summary="Image", response_class=Response, responses=_responses(*_SUFFIXES))
async def image(request: Request, id_: Id, store: StoreName = None, v: Version = None) -> Response:
    """An image of a store: its file if browsers show its format, else a JPEG of it."""
    service, served, row = await _asked(request, store, id_)
    found = await service.decoders.original(row["uri"])
    if isinstance(found, str):
        return await _not_shown(request, served, id_, found, 2)
    return await asyncio.to_thread(_shown, request, *found, row["key"], v == row["version"])


async def _asked(request: Request, store_name: str | None, id_: int) -> tuple[Service, ServedStore, dict[str, Any]]:
    service = service_of(request)
    store = service.stores.named(store_name)
    return service, store, await asyncio.to_thread(store.row, id_)


def _shown(request: Request, data: bytes, media_type: str, key: str, is_current: bool) -> Response:
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {
        # with the version in its address, an image never changes: another index has another version
        "Cache-Control": f"private, max-age={YEAR_S}, immutable" if is_current else "private, no-cache",
        "ETag": etag,
        "Content-Disposition": _inline(key, media_type),
    }
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)


async def _not_shown(request: Request, store: ServedStore, id_: int, reason: str, scale: int) -> Response:
    """A placeholder for pages, a problem for programs."""
    headers = {"Vary": "Accept"}
    if "image/" not in request.headers.get("accept", ""):
        raise ProblemError(404, f"image {id_} of {store.name} cannot be shown: {reason}", headers)
    picture = await asyncio.to_thread(placeholder.placeholder, f"Not shown: {reason}", scale)
    return Response(picture, 404, headers, placeholder.MEDIA_TYPE)


def _inline(key: str, media_type: str) -> str:
    """The name under which browsers save an image: that of its key, with the suffix of what it is."""
    # without what is no character to see, such as what turns the direction of writing, which could hide the suffix
    stem = "".join(filter(str.isprintable, PurePosixPath(key).stem))[:_LONGEST_NAME]
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", stem).strip("._") or "image"
    suffix = _SUFFIXES[media_type]
    return f"inline; filename=\"{plain}{suffix}\"; filename*=UTF-8''{quote(stem, safe='', errors='replace')}{suffix}"
