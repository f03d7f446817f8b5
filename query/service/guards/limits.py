"""How much one may ask for: requests at a time, bytes of a request."""

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from query.service.guards.addresses import PROBES, is_open, route_path
from query.service.guards.refusals import refusal
from query.service.metrics import Metrics
from query.service.settings import ServeSettings

UPLOADS = ("multipart/form-data", "application/json")
"""What an image can be sent as. JSON holds it in base64."""
MOST_OTHER_BYTES = 1_000_000
"""Bytes of a request that is no upload."""
DRAIN_S = 2.0
"""Seconds for which the rest of a refused body is read. A connection that is closed while the client still writes is
reset, and then the client may not see the response."""


@dataclass(slots=True)
class _Places:
    most: int
    taken: int = 0


def few_at_a_time(app: ASGIApp, most: int, metrics: Metrics) -> ASGIApp:
    """Refuse requests while so many are being answered. They do not wait: the client knows best how to go on.

    Those with a body, which can be slow to arrive, get half of the places at most. Addresses that need no token have
    places of their own: whoever has none takes none from the others.
    """
    places, for_bodies, for_anybody = _Places(most), _Places((most + 1) // 2), _Places(most)

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        if path in PROBES:
            return await app(scope, receive, send)
        has_body = scope["method"] != "GET"
        needed = [for_anybody] if is_open(path) else [places, for_bodies] if has_body else [places]
        for one in needed:
            if one.taken >= one.most:
                detail = f"{one.most} requests are being answered; ask again later"
                return await refusal(metrics, "busy", 429, detail, {"Retry-After": "1"})(scope, receive, send)
        for one in needed:
            one.taken += 1
        try:
            await app(scope, receive, send)
        finally:
            for one in needed:
                one.taken -= 1

    return guard


class _TooLargeError(Exception):
    """Ends the reading of a body."""


def of_limited_size(app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> ASGIApp:
    """Refuse bodies with too many bytes. They are counted: the Content-Length may lie or be missing."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        is_upload = headers.get("content-type", "").lower().startswith(UPLOADS)
        most = settings.max_upload if is_upload else min(settings.max_upload, MOST_OTHER_BYTES)
        num_bytes, is_refused, has_started = 0, False, False

        async def receive_counted() -> Message:
            nonlocal num_bytes, is_refused
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > most:
                is_refused = True
                raise _TooLargeError
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal has_started
            if not is_refused:  # what a route makes of a body that was cut off is no answer
                has_started = True
                await send(message)

        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > most:
            is_refused = True
        else:
            try:
                await app(scope, receive_counted, send_unless_refused)
            except Exception:
                if not is_refused:
                    raise
        if is_refused and not has_started:
            size = f"{most / 1e6:g} MB" if most >= 1_000_000 else f"{most} bytes"
            detail = f"the request has more than {size}, the limit of this service"
            await _refuse(detail, 2 * most, metrics)(scope, receive, send)

    return guard


def _refuse(detail: str, most_read: int, metrics: Metrics) -> ASGIApp:
    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        response = refusal(metrics, "too_large", 413, detail, {"Connection": "close"})
        await send({"type": "http.response.start", "status": 413, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await _read_away(receive, most_read)
        await send({"type": "http.response.body"})

    return respond


async def _read_away(receive: Receive, most: int) -> None:
    num_bytes = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            while num_bytes < most:
                message = await receive()
                num_bytes += len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        return
