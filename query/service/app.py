"""The whole service as one ASGI application: routes, and around them the guards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from pipeline import __version__
from query.service.guards.all import guarded
from query.service.problems import ProblemError, invalid, problem
from query.service.routes import health, knn, search
from query.service.service import Service


def create_app(service: Service) -> ASGIApp:
    """The application that serves a service.

    Its addresses begin at `/`; a path prefix is the `root_path` of the server.
    """
    app = FastAPI(
        title="clipsieve",
        version=__version__,
        description="Text-to-image search over stores of CLIP embeddings.",
        docs_url=None,  # their pages load scripts from other hosts
        redoc_url=None,
        lifespan=_lifespan(service),
    )
    app.state.service = service
    for router in (search.router, knn.router, health.router):
        app.include_router(router)
    app.add_exception_handler(ProblemError, _say_problem)
    app.add_exception_handler(RequestValidationError, _say_what_is_invalid)
    app.add_exception_handler(HTTPException, _say_status)
    return guarded(app, service)


def _lifespan(service: Service):  # noqa: ANN202 - the type that Starlette wants has no short name
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        fresh = asyncio.create_task(service.stores.keep_fresh(service.settings.refresh_s))
        try:
            yield
        finally:
            fresh.cancel()
            await service.decoders.close()
            service.stores.close()

    return lifespan


async def _say_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response()


async def _say_what_is_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(422, invalid(error.errors()))


async def _say_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), error.headers)
