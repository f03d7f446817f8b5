"""Which web pages may ask: those of the service itself, and those of named origins."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from query.service.guards.refusals import refusal
from query.service.metrics import Metrics


def for_our_pages(app: ASGIApp, named_origins: frozenset[str], metrics: Metrics) -> ASGIApp:
    """Refuse what a page of another site asks for. Programs, which send no Origin, pass."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if _is_foreign(headers, named_origins):
            detail = (
                "a page of another site sent this; name its origin by --allow-origin if it may ask (a proxy has to "
                "pass the Host header on)"
            )
            return await refusal(metrics, "origin", 403, detail)(scope, receive, send)
        await app(scope, receive, send)

    return guard


def shared_with(app: ASGIApp, named_origins: frozenset[str]) -> ASGIApp:
    """Let the pages of named origins read the answers (CORS). They send the token, if there is one, never a cookie."""
    if not named_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=named_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization",),
        expose_headers=("Retry-After", "Server-Timing"),
    )


def _is_foreign(headers: Headers, named_origins: frozenset[str]) -> bool:
    origins = headers.getlist("origin")
    if not origins:
        # an image or a script of another site's page; a link to here is a navigation
        return headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate"
    if len(origins) > 1:
        return True
    return origins[0] not in named_origins and not _is_own(origins[0], headers.get("host", ""))


def _is_own(origin: str, host: str) -> bool:
    # only the host is compared: behind a proxy the page's scheme may be another one than ours
    scheme, _, place = origin.lower().partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme)
    return port is not None and place.removesuffix(port) == host.lower().removesuffix(port)
