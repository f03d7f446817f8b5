"""The guards in the order in which a request meets them."""

from starlette.types import ASGIApp, Receive, Scope, Send

from query.service.guards.counting import counted
from query.service.guards.deadlines import within
from query.service.guards.failures import without_exceptions
from query.service.guards.headers import with_headers
from query.service.guards.hosts import for_our_hosts
from query.service.guards.limits import few_at_a_time, of_limited_size
from query.service.guards.origins import for_our_pages, shared_with
from query.service.guards.tokens import with_token
from query.service.service import Service


def guarded(app: ASGIApp, service: Service) -> ASGIApp:
    """An application behind all guards. The last one named here is the first that a request meets."""
    settings, metrics = service.settings, service.metrics
    named = frozenset(settings.allow_origin)

    inner = of_limited_size(app, settings, metrics)  # last: only who may ask has a body read
    inner = few_at_a_time(inner, settings.max_in_flight, metrics)
    inner = with_token(inner, service.sessions, metrics)
    inner = within(inner, settings.timeout_s, metrics)
    inner = shared_with(inner, named)  # before the token, which no preflight request sends
    inner = for_our_pages(inner, named, metrics)
    inner = for_our_hosts(inner, settings, metrics)  # before the origin, which is compared with the host
    inner = without_exceptions(inner)
    inner = counted(inner, metrics)  # sees the status of every request, whoever gave it
    inner = with_headers(inner, named)  # first: no response leaves without them

    async def entry(scope: Scope, receive: Receive, send: Send) -> None:
        await (inner if scope["type"] == "http" else app)(scope, receive, send)

    return entry
