"""Metrics of requests."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from query.service.metrics import Metrics

METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
"""The others share a label: clients may invent methods."""

CLIENT_LEFT = "499"
"""Status of a request whose client did not wait for the response, as nginx has it."""


def counted(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """Time requests by the template of their route, never by what they ask for."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), CLIENT_LEFT

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        metrics.in_flight.inc()
        try:
            await app(scope, receive, note_status)
        finally:
            metrics.in_flight.dec()
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", "none")  # the router leaves it in the scope
            metrics.request_seconds.labels(route, method, status).observe(time.perf_counter() - started)

    return guard
