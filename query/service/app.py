"""The whole service as one ASGI application: routes, and around them the guards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline import __version__
from pipeline.errors import ConfigError
from query.service.guards.all import guarded
from query.service.problems import FAILED, Problem, ProblemError, invalid, problem
from query.service.routes import health, images, knn, login, page, search
from query.service.service import Service

ROUTERS = (search.router, images.router, knn.router, health.router, login.router, page.router)


def create_app(service: Service) -> ASGIApp:
    """The application that serves a service.

    Raises:
        ConfigError: If the path prefix of the settings begins like an address of the service.
    """
    app = _App(
        title="clipsieve",
        version=__version__,
        description="Text-to-image search over stores of CLIP embeddings.",
        docs_url=None,  # their pages load scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,  # it would answer 307, with an address made of the Host header
        lifespan=_lifespan(service),
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their methods
    )
    app.state.service = service
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(ProblemError, _say_problem)
    app.add_exception_handler(RequestValidationError, _say_what_is_invalid)
    app.add_exception_handler(HTTPException, _say_status)
    app.add_exception_handler(Exception, _say_failure)
    prefix = service.settings.root_path
    return _below(prefix, guarded(app, service)) if prefix else guarded(app, service)


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """FastAPI's document, with the schema that all problems refer to."""
        document = super().openapi()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document


def _below(prefix: str, app: ASGIApp) -> ASGIApp:
    """The application behind a proxy with a path prefix, whether or not the proxy takes the prefix off."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, Route | Mount)]
    first = prefix.split("/")[1]
    if first in {"openapi.json", *(route.path.split("/")[1] for route in routes)}:
        # else nobody could tell the prefix from the address
        raise ConfigError(
            f"root_path = {prefix!r}: /{first} is an address of the service itself; choose another prefix"
        )

    async def prefixed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path, raw_path = scope["path"], scope["raw_path"]
            if path != prefix and not path.startswith(f"{prefix}/"):
                path, raw_path = prefix + path, prefix.encode() + raw_path
            scope = {**scope, "root_path": prefix, "path": path, "raw_path": raw_path}
        await app(scope, receive, send)

    return prefixed


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
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return problem(error.status_code, str(error.detail), headers)


def _methods(request: Request) -> set[str]:
    """The methods of an address; by itself, the router names only those of the first of its routes."""
    scopes = {method: {**request.scope, "method": method} for method in ("GET", "POST")}
    routes = request.app.router.routes
    return {method for method, scope in scopes.items() if any(one.matches(scope)[0] is Match.FULL for one in routes)}


async def _say_failure(request: Request, error: Exception) -> Response:
    return problem(500, FAILED)  # the guard around all logs the error, which Starlette raises again
