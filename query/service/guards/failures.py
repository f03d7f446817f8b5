"""The one place where an unexpected exception ends."""

import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from query.service.problems import FAILED, problem

_log = logging.getLogger("clipsieve.serve")


def without_exceptions(app: ASGIApp) -> ASGIApp:
    """Log the traceback of an exception, and answer with status 500 and no detail."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def note_start(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await app(scope, receive, note_start)
        except ClientDisconnect:
            return
        except Exception:
            _log.exception("%s %s failed", scope["method"], getattr(scope.get("route"), "path", "a request"))
            if not has_started:
                await problem(500, FAILED)(scope, receive, send)

    return guard
