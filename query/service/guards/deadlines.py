"""How long a request may take."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from query.service.guards.refusals import refusal
from query.service.metrics import Metrics


def within(app: ASGIApp, seconds: float, metrics: Metrics) -> ASGIApp:
    """End requests that take longer: 408 if the client is to blame, which sends its body slowly; otherwise 503.

    A response that has begun is cut off, such as that of a client that does not read it.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        waits_for_body, has_body, has_started = False, False, False

        async def receive_noted() -> Message:
            nonlocal waits_for_body, has_body
            waits_for_body = not has_body
            message = await receive()
            waits_for_body, has_body = False, has_body or not message.get("more_body")
            return message

        async def note_start(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            async with asyncio.timeout(seconds) as limit:
                await app(scope, receive_noted, note_start)
        except TimeoutError:
            if not limit.expired():
                raise
            if has_started:
                return
            if waits_for_body:
                detail = f"the request did not arrive within {seconds:g} s"
                response = refusal(metrics, "slow_body", 408, detail, {"Connection": "close"})
            else:
                detail = f"the answer took longer than {seconds:g} s; ask again later, or for less"
                response = refusal(metrics, "timeout", 503, detail, {"Retry-After": "5"})
            await response(scope, receive, send)

    return guard
