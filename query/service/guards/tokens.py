"""Who may ask: those with the token, or with the cookie that the login form gives for it."""

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from query.service.guards.addresses import is_open, route_path
from query.service.guards.refusals import refusal
from query.service.metrics import Metrics
from query.service.sessions import COOKIE, Sessions


def with_token(app: ASGIApp, sessions: Sessions, metrics: Metrics) -> ASGIApp:
    """Refuse requests without the token; browsers are sent to the login form."""
    if not sessions.are_needed:
        return app

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if is_open(route_path(scope)) or _has_token(scope, sessions):
            return await app(scope, receive, send)
        headers = Headers(scope=scope)
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return await _to_login(scope)(scope, receive, send)
        detail = "this needs the token of the service; send it as `Authorization: Bearer TOKEN`"
        response = refusal(metrics, "token", 401, detail, {"WWW-Authenticate": "Bearer"})
        await response(scope, receive, send)

    return guard


def _has_token(scope: Scope, sessions: Sessions) -> bool:
    values = Headers(scope=scope).getlist("authorization")
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() == "bearer" and sessions.is_token(token.strip().encode("latin-1")):
        return True
    return sessions.is_valid(HTTPConnection(scope).cookies.get(COOKIE, ""))


def _to_login(scope: Scope) -> Response:
    # relative, so that it is right behind any proxy; what the page was asked for comes along, and never another address
    path = route_path(scope)
    query = scope["query_string"].decode("latin-1") if path in ("", "/") else ""
    # without a slash at its end, the prefix is no folder for browsers
    folder = "../" * (path.count("/") - 1) if path else scope["root_path"].rpartition("/")[2] + "/"
    return RedirectResponse(f"{folder}login{'?' if query else ''}{query}", 303)
